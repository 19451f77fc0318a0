"""A store that takes no writes is seen at /readyz and said to clients, and is well again when the cause is gone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from kubesvc.apiserver import storecheck
from kubesvc.client.transport import Handler, Request
from kubesvc.store.protocol import StoreError
from kubesvc.store.sqlite import SqliteStore
from support.apiserver import ADMIN, local_server

Undo = Callable[[], None]


def read_only(store: SqliteStore, path: Path) -> Undo:
    store._database.execute("PRAGMA query_only = ON")
    return lambda: store._database.execute("PRAGMA query_only = OFF") and None


def locked(store: SqliteStore, path: Path) -> Undo:
    store._database.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def limited(store: SqliteStore, path: Path) -> Undo:
    """No page more than there are: SQLite says "full", as it does where the disk is."""
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: store._database.execute("PRAGMA max_page_count = 1000000") and None


def damaged(store: SqliteStore, path: Path) -> Undo:
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with path.open("r+b") as file:
        file.write(os.urandom(4096))

    def repair() -> None:
        with path.open("r+b") as file:
            file.write(before[:4096])

    return repair


async def ask(handler: Handler, path: str) -> tuple[int, str]:
    response = await handler(Request("GET", path, {"verbose": ""}, {}, b""))
    return response.status, response.body.decode()


async def write(handler: Handler, name: str, size: int) -> tuple[int, str]:
    body = b'{"metadata":{"name":"%s"},"data":{"x":"%s"}}' % (name.encode(), b"x" * size)
    request = Request("POST", "/api/v1/namespaces/default/configmaps", {}, {}, body, user=ADMIN)
    response = await handler(request)
    return response.status, response.body.decode()


@pytest.mark.parametrize(
    ("harm", "says", "unready"),
    [
        pytest.param(read_only, "it can't be written: look at the permissions of the file", True, id="read-only"),
        pytest.param(locked, "another process has it open: stop that one, or use another file", True, id="locked"),
        pytest.param(limited, "the disk is full: free some space where this file is", False, id="full"),
        pytest.param(damaged, "the file is damaged: bring back a backup with `kubesvc restore FILE`", True,
                     id="damaged"),
    ],
)  # fmt: skip
async def test_a_store_in_trouble_is_named_by_readyz_and_by_refusals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[SqliteStore, Path], Undo],
    says: str,
    unready: bool,
) -> None:
    """A full file still takes a write that needs no page more, so /readyz is tried on a full disk (tests/kernel)."""
    monkeypatch.setattr(storecheck, "_FRESH", 0.0)
    path = tmp_path / "objects.db"
    store = SqliteStore(path)
    try:
        async with local_server(store) as server:
            assert (await ask(server.handler, "/readyz"))[0] == 200
            undo = harm(store, path)
            try:
                if unready:
                    code, text = await ask(server.handler, "/readyz")
                    (line,) = [line for line in text.splitlines() if line.startswith("[-]")]
                    assert code == 500
                    assert line.startswith(f"[-]store failed: {path}: ")
                    assert says in line
                    assert (await ask(server.handler, "/livez"))[0] == 200, "another process would find the same"
                if harm is not damaged:  # SQLite has what it wrote before in memory
                    code, answer = await write(server.handler, "during", 100_000)
                    assert (code, "ServiceUnavailable" in answer) == (503, True)
                    assert says in answer
                    assert await store.get("core/configmaps/default/during") is None
            finally:
                undo()
            assert (await ask(server.handler, "/readyz"))[0] == 200
            assert (await write(server.handler, "after", 100_000))[0] == 201
    finally:
        await store.close()


async def test_many_who_ask_at_once_cost_one_try() -> None:
    class Counting:
        tries = 0

        async def check(self) -> None:
            self.tries += 1
            raise StoreError("no")

    store = Counting()
    check = storecheck.StoreCheck(store)  # type: ignore[arg-type]
    assert [await check.found() for _ in range(5)] == ["failed: no"] * 5
    assert store.tries == 1
