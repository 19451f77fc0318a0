"""What the file of a store is good for when something is wrong with it, and how long it remembers."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kubesvc.store import database as rows_in_a_file
from kubesvc.store.protocol import Compacted, StoreError, StoreEvent, Unwritable, Write
from kubesvc.store.sqlite import SqliteStore

DEADLINE = 60.0
SMALL = 5_000  # bytes of history in memory


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    """A store that forgets soon in memory, and by its own clock on disk."""
    store = SqliteStore(tmp_path / "s.db", history_bytes=SMALL, clock=clock)
    yield store
    await store.close()


async def overwrite(store: SqliteStore, times: int, key: str = "g/a/-/x") -> int:
    """Set one key again and again; returns the last revision."""
    revision = store.log.found(key)
    for n in range(times):
        revision = await store.commit([Write(key, b"%d" % n, revision)])
    return revision


async def take(events: AsyncIterator[StoreEvent | int], count: int) -> list[StoreEvent]:
    found: list[StoreEvent] = []
    async with asyncio.timeout(DEADLINE):
        while len(found) < count:
            event = await anext(events)
            if isinstance(event, StoreEvent):
                found.append(event)
    return found


def rows(path: Path) -> int:
    database = sqlite3.connect(path)
    (count,) = database.execute("SELECT count(*) FROM log").fetchone()
    database.close()
    return int(count)


# ── history ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_watch_from_before_memory_begins_reads_the_file_and_then_goes_on_live(store: SqliteStore) -> None:
    last = await overwrite(store, 1300)  # more than is read at once, twice
    assert store.log.oldest > 1000
    events = store.watch("g/a/", 0)
    assert [e.revision for e in await take(events, 1300)] == list(range(1, last + 1))
    await overwrite(store, 1)
    (live,) = await take(events, 1)
    assert (live.revision, live.previous_revision) == (last + 1, last)


async def test_events_from_the_file_are_those_of_memory(store: SqliteStore) -> None:
    first = await take(store.watch("g/", await overwrite(store, 1) - 1), 1)
    gone = await store.commit([Write("g/a/-/x", None, 1)])
    again = await overwrite(store, 1)
    live = first + await take(store.watch("g/", 1), 2)
    await overwrite(store, 200, "g/b/-/y")
    assert store.log.oldest > again > gone
    assert await take(store.watch("g/a/", 0), 3) == live


async def test_a_watcher_left_behind_by_memory_misses_nothing(store: SqliteStore) -> None:
    slow = store.watch("g/a/", 0)
    await overwrite(store, 1)
    await take(slow, 1)
    last = await overwrite(store, 300)
    assert [e.revision for e in await take(slow, 300)] == list(range(2, last + 1))


async def test_an_old_page_is_read_from_the_file(store: SqliteStore) -> None:
    await store.commit([Write(f"g/a/-/{n}", b"old", 0) for n in range(4)])
    first = await store.list("g/a/", limit=2)
    await store.commit([Write("g/a/-/3", None, 4)])
    await overwrite(store, 200, "g/b/-/y")
    assert store.log.oldest > first.revision
    assert first.next_key is not None
    rest = await store.list("g/a/", start=first.next_key, revision=first.revision)
    assert [item.key for item in rest.items] == ["g/a/-/2", "g/a/-/3"]


async def test_five_minutes_are_kept_and_then_it_is_gone(store: SqliteStore, clock: Clock, tmp_path: Path) -> None:
    still = await store.commit([Write("g/a/-/still", b"here", 0)])
    await overwrite(store, 400)
    clock.now = 60
    noted = await overwrite(store, 1)
    clock.now = 299
    await overwrite(store, 200)
    assert len(await take(store.watch("g/a/-/x", 0), 601)) == 601
    clock.now = 361
    last = await overwrite(store, 200)
    with pytest.raises(Compacted) as refused:
        await anext(store.watch("g/a/", 0))
    assert refused.value.oldest == noted
    assert len(await take(store.watch("g/a/", noted), 400)) == last - noted
    await store.close()
    assert rows(tmp_path / "s.db") < 410
    again = SqliteStore(tmp_path / "s.db", history_bytes=SMALL)
    assert [item.revision for item in (await again.list("g/a/")).items] == [still, last]
    assert (await take(again.watch("g/a/", noted), 400))[0].previous_revision == noted
    await again.close()


async def test_the_file_does_not_grow_with_what_is_overwritten(
    store: SqliteStore, clock: Clock, tmp_path: Path
) -> None:
    sizes = []
    for _ in range(6):
        for _ in range(50):
            clock.now += 20
            revision = store.log.found("g/a/-/x")
            await store.commit([Write("g/a/-/x", os.urandom(20_000), revision)])
        sizes.append((tmp_path / "s.db").stat().st_size + (tmp_path / "s.db-wal").stat().st_size)
    assert sizes[-1] < 25 << 20, sizes
    await store.close()
    assert (tmp_path / "s.db").stat().st_size < 2 << 20


async def test_a_compaction_that_fails_is_made_up_for_by_the_next(
    store: SqliteStore, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact, failed = rows_in_a_file.compact, []

    def fails_twice(connection: sqlite3.Connection, until: int) -> None:
        if len(failed) < 2:
            failed.append(until)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM log WHERE id <= ?", (until,))
            raise sqlite3.OperationalError("database or disk is full")
        compact(connection, until)

    monkeypatch.setattr(rows_in_a_file, "compact", fails_twice)
    for _ in range(6):
        clock.now += 400
        last = await overwrite(store, 200)
    await store.close()
    assert len(failed) == 2
    assert rows(tmp_path / "s.db") < 700, "of 1200"
    again = SqliteStore(tmp_path / "s.db")
    assert (await again.get("g/a/-/x")).revision == last  # type: ignore[union-attr]
    await again.close()


async def test_commits_made_at_once_are_one_durable_transaction(store: SqliteStore) -> None:
    """Acknowledged after its COMMIT, which is through to the disk; many share one."""
    for setting, value in (("journal_mode", "wal"), ("synchronous", 2)):
        assert store._database.execute(f"PRAGMA {setting}").fetchone() == (value,)
    said: list[str] = []
    store._database.set_trace_callback(said.append)
    await asyncio.gather(*(store.commit([Write(f"g/a/-/{n}", b"x", 0)]) for n in range(300)))
    assert 1 <= said.count("COMMIT") <= 5
    assert said[-1] == "COMMIT"


async def test_a_store_reopens_with_no_more_history_in_memory_than_it_may(store: SqliteStore, tmp_path: Path) -> None:
    last = await overwrite(store, 1000)
    await store.close()
    again = SqliteStore(tmp_path / "s.db", history_bytes=SMALL)
    assert last - again.log.oldest < 30
    assert [e.revision for e in await take(again.watch("g/", 0), last)] == list(range(1, last + 1))
    await again.close()


# ── power loss ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("damage", ["cut", "garbage"])
async def test_a_torn_end_loses_no_acknowledged_commit_and_leaves_none_in_part(tmp_path: Path, damage: str) -> None:
    """Power fails at any moment: what was synced is there, what came after is torn. Whatever was acknowledged while
    the write-ahead log was that long is found, and of each commit all or nothing."""
    store = SqliteStore(tmp_path / "s.db")
    wal = tmp_path / "s.db-wal"
    acknowledged: list[tuple[int, int]] = []  # (length of the log then, number)
    for n in range(20):
        await store.commit([Write(f"g/{k}/-/{n:02}", os.urandom(700), 0) for k in "ab"])
        acknowledged.append((wal.stat().st_size, n))
    for place, (length, number) in enumerate(acknowledged):
        for extra in (0, 1, 2000):
            copy = tmp_path / f"{place}-{extra}" / "s.db"
            copy.parent.mkdir()
            shutil.copy(tmp_path / "s.db", copy)
            torn = wal.read_bytes()[: length + extra]
            if damage == "garbage":
                torn = torn[:length] + os.urandom(extra + 4096)
            copy.with_name("s.db-wal").write_bytes(torn)
            found = SqliteStore(copy)
            a = [i.key[-2:] for i in (await found.list("g/a/")).items]
            b = [i.key[-2:] for i in (await found.list("g/b/")).items]
            assert a == b, "half a commit"
            assert a[: number + 1] == [f"{n:02}" for n in range(number + 1)]
            await found.close()
    await store.close()


# ── files that are not as they should be ─────────────────────────────────────────────────────────────────────────────


async def test_a_damaged_file_is_named_with_what_to_do(store: SqliteStore, tmp_path: Path) -> None:
    for n in range(50):
        await store.commit([Write(f"g/a/-/{n}", os.urandom(5000), 0)])
    await store.close()
    path = tmp_path / "s.db"
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 16384))
    with pytest.raises(StoreError, match=r"s\.db: .*the file is damaged: bring back a backup with `kubesvc restore"):
        SqliteStore(path)


async def test_a_file_of_another_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await SqliteStore(path).close()
    database = sqlite3.connect(path)
    database.execute("UPDATE state SET number = 99 WHERE name = 'format'")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="it is of format 99, this kubesvc reads format"):
        SqliteStore(path)
    assert path.read_bytes() == before


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match=r"nowhere/s\.db: No such file or directory"):
        SqliteStore(tmp_path / "nowhere" / "s.db")


async def test_a_file_that_is_being_read_is_written_all_the_same(store: SqliteStore, tmp_path: Path) -> None:
    await overwrite(store, 3)
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN")
    (before,) = other.execute("SELECT count(*) FROM log").fetchone()
    await overwrite(store, 3)
    assert other.execute("SELECT count(*) FROM log").fetchone() == (before,)
    other.close()


_FULL = """
import asyncio, pathlib, resource, signal, sys
from kubesvc.store.protocol import Write
from kubesvc.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    print(await store.commit([Write("g/a/-/before", b"x", 0)]))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        for n in range(100):
            await store.commit([Write(f"g/a/-/{n}", b"x" * 20_000, 0), Write(f"g/b/-/{n}", b"x", 0)])
    except Exception as error:
        print(type(error).__name__, error, sep=": ")
    print(len((await store.list("g/a/")).items) - 1 == len((await store.list("g/b/")).items))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.commit([Write(f"g/c/-/after", b"x" * 20_000, 0)])
    await store.close()

asyncio.run(main())
"""


async def test_a_write_beyond_a_files_limit_fails_and_later_ones_succeed(tmp_path: Path) -> None:
    writer = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / "s.db")], capture_output=True, text=True, check=True, timeout=60
    )
    first, error, whole = writer.stdout.splitlines()
    assert first == "1"
    assert f"{tmp_path}/s.db: disk I/O error; the disk doesn't take it" in error
    assert whole == "True"
    store = SqliteStore(tmp_path / "s.db")
    assert len((await store.list("g/c/")).items) == 1
    a, b = [len((await store.list(f"g/{k}/")).items) for k in "ab"]
    assert a - 1 == b > 0
    await store.close()
