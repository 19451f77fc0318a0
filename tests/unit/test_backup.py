"""Backups are one moment of a store in use; restores replace a store that nobody uses."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kubesvc.store import backup
from kubesvc.store.protocol import Compacted, StoreError, Write
from kubesvc.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "objects.db")
    for n in range(50):
        await store.commit([Write(f"g/a/-/{n:02}", b"%d" % n, 0), Write(f"g/b/-/{n:02}", b"%d" % n, 0)])
    for n in range(10):
        await store.commit([Write(f"g/a/-/{n:02}", None, 2 * n + 1), Write(f"g/b/-/{n:02}", None, 2 * n + 2)])
    yield store
    await store.close()


async def test_a_backup_is_one_moment_while_others_write(store: SqliteStore, tmp_path: Path) -> None:
    async def churn() -> None:
        for n in range(100, 1000):
            await store.commit([Write(f"g/a/-/{n}", b"x" * 500, 0), Write(f"g/b/-/{n}", b"x", 0)])

    writing = asyncio.create_task(churn())
    await store.commit([Write("g/c/-/started", b"", 0)])
    count = await asyncio.to_thread(backup.backup, tmp_path / "objects.db", tmp_path / "copy")
    writing.cancel()
    items = {item.key for item in backup.snapshot(tmp_path / "copy")}
    assert len(items) == count > 80
    a, b = ({key[6:] for key in items if key.startswith(f"g/{k}/")} for k in "ab")
    assert a == b, "half a commit"
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy"]


async def test_a_restored_store_is_what_was_backed_up_and_never_reuses_a_revision(
    store: SqliteStore, tmp_path: Path
) -> None:
    path, copy = tmp_path / "objects.db", tmp_path / "copy"
    before = (await store.list("g/")).items
    backup.backup(path, copy)
    later = await store.commit([Write("g/a/-/later", b"", 0)])
    await store.close()
    assert backup.restore(copy, path) == 80
    again = SqliteStore(path)
    assert (await again.list("g/")).items == before
    with pytest.raises(Compacted):
        await anext(again.watch("g/", later))
    assert await again.commit([Write("g/a/-/later", b"", 0)]) > later + 1
    await again.close()
    assert {item.key for item in backup.snapshot(path.with_name("objects.db.before-restore"))} >= {"g/a/-/later"}
    assert copy.exists()


async def test_a_restore_is_refused_while_the_store_is_in_use(store: SqliteStore, tmp_path: Path) -> None:
    backup.backup(tmp_path / "objects.db", tmp_path / "copy")
    with pytest.raises(StoreError, match="another process has it open"):
        backup.restore(tmp_path / "copy", tmp_path / "objects.db")
    assert await store.commit([Write("g/a/-/on", b"", 0)])


async def test_a_damaged_store_is_replaced(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    backup.backup(path, tmp_path / "copy")
    await store.close()
    path.write_bytes(b"nothing of any use" * 1000)
    backup.restore(tmp_path / "copy", path)
    again = SqliteStore(path)
    assert len((await again.list("g/")).items) == 80
    await again.close()


async def test_what_is_no_backup_is_refused_and_nothing_changes(store: SqliteStore, tmp_path: Path) -> None:
    await store.close()
    path = tmp_path / "objects.db"
    before = path.read_bytes()
    (tmp_path / "text").write_text("hello" * 1000)
    sqlite3.connect(tmp_path / "other").executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    for name, why in (("text", "is it a kubesvc database"), ("other", "is it a kubesvc"), ("gone", "no such file")):
        with pytest.raises(StoreError, match=why):
            backup.restore(tmp_path / name, path)
    assert path.read_bytes() == before


async def test_a_backup_leaves_what_is_there_alone(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("mine")
    with pytest.raises(StoreError, match="it is there already"):
        backup.backup(tmp_path / "objects.db", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "mine"
