"""A store in one SQLite file: durable before it is acknowledged, many commits to one fsync.

The event loop decides (preconditions against the log and what is on its way), one thread writes:

    commit ─► preconditions ─► queue ─► writer: all that has queued up, one transaction, one fsync ─► log ─► watchers
                  ▲                                                                             │
                  └── what is on its way: key -> revision ◄──────── taken away when durable ────┘

The table is the log itself, one row a write: `id = revision << 7 | place in the commit`. Readers never see a commit
that isn't durable. A commit that would fail against one on its way waits for that one first, so that a refusal speaks
of durable facts too. Compaction removes rows that a newer one replaced, once memory has forgotten the event.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kubesvc.store.log import HISTORY_BYTES, MARK_SECONDS, Log, Reads, first_failure, refuse_oversized
from kubesvc.store.protocol import MAX_BYTES, MAX_OPERATIONS, Check, StoreError, StoreEvent, Unknown, Write

log = logging.getLogger(__name__)

_SHIFT = 7
assert 1 << _SHIFT >= MAX_OPERATIONS

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO state VALUES ('compacted', 0), ('format', 1);
"""
_BUSY = "another process has it open: stop that one, or use another file"


@dataclass(slots=True)
class _Commit:
    """A commit on its way to the disk. `epoch` counts failed batches: what queued behind one must fail as well."""

    revision: int
    writes: Sequence[Write]
    epoch: int
    done: asyncio.Future[int]


@dataclass(frozen=True, slots=True)
class _Compaction:
    """Forget all before revision `oldest`: these rows, as (revision, key)."""

    oldest: int
    rows: list[tuple[int, str]]


@dataclass(slots=True)
class _Batch:
    commits: list[_Commit] = field(default_factory=list)
    compactions: list[_Compaction] = field(default_factory=list)
    last: bool = False


class SqliteStore(Reads):
    """Opens and loads `path` at once, and holds it alone. Raises StoreError when it can't be opened."""

    def __init__(self, path: Path, *, history_bytes: int = HISTORY_BYTES, mark_seconds: float = MARK_SECONDS) -> None:
        self.log = Log(history_bytes=history_bytes, mark_seconds=mark_seconds)
        self._path = path
        self._database = _open(path)
        self._load()
        self._queue: queue.SimpleQueue[_Commit | _Compaction | None] = queue.SimpleQueue()
        self._next = self.log.revision + 1
        self._on_the_way: dict[str, _Commit] = {}  # key -> the newest commit that writes it
        self._epoch = 0
        self._failed_epoch = -1  # set by the writer
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = threading.Thread(target=self._write, name="sqlite-writer", daemon=True)
        self._writer.start()

    async def commit(self, writes: Sequence[Write], checks: Sequence[Check] = ()) -> int:
        refuse_oversized(writes, checks, MAX_OPERATIONS, MAX_BYTES)
        self._loop = asyncio.get_running_loop()
        while failed := first_failure(self._pending(writes, checks), self.log, writes, checks):
            if (ahead := self._on_the_way.get(failed.key)) is None:
                raise failed
            await asyncio.wait([ahead.done])
        if self._closed:
            raise StoreError(f"{self._path} is closed")
        commit = _Commit(self._next, writes, self._epoch, self._loop.create_future())
        self._next += 1
        for write in writes:
            self._on_the_way[write.key] = commit
        self._queue.put(commit)
        # The caller may be cancelled; the commit goes its way all the same.
        return await asyncio.shield(commit.done)

    def _pending(self, writes: Sequence[Write], checks: Sequence[Check]) -> dict[str, int]:
        """Keys named here that are on their way -> the revision they will have."""
        found: dict[str, int] = {}
        if self._on_the_way:
            for key in (*(w.key for w in writes), *(c.key for c in checks)):
                if ahead := self._on_the_way.get(key):
                    gone = any(w.key == key and w.value is None for w in ahead.writes)
                    found[key] = 0 if gone else ahead.revision
        return found

    async def close(self) -> None:
        """Write what is on its way, then let the file go."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        self._database.close()

    # ── in the event loop, when the writer is done ───────────────────────────────────────────────────────────────

    def _durable(self, commits: list[_Commit]) -> None:
        for commit in commits:
            self.log.append(commit.revision, commit.writes)
            self._arrived(commit)
            if not commit.done.done():
                commit.done.set_result(commit.revision)
        if dropped := self.log.trim():
            self._queue.put(_Compaction(self.log.oldest, _replaced(dropped)))

    def _failed(self, commits: list[_Commit], error: Exception) -> None:
        """Nothing of these is durable as far as is known; the next commits start from what is."""
        if commits[0].epoch == self._epoch:
            self._epoch += 1
            self._on_the_way.clear()
            self._next = self.log.revision + 1
        for commit in commits:
            if not commit.done.done():
                commit.done.set_exception(Unknown(f"{self._path}: {error}"))
                commit.done.exception()  # the caller may have been cancelled: nobody else will look

    def _arrived(self, commit: _Commit) -> None:
        for write in commit.writes:
            if self._on_the_way.get(write.key) is commit:
                del self._on_the_way[write.key]

    # ── in the writer's thread ───────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        while True:
            batch = self._take()
            if batch.commits:
                self._write_commits(batch.commits)
            for compaction in batch.compactions:
                self._compact(compaction)
            if batch.last:
                return

    def _take(self) -> _Batch:
        """Wait for something to do, and take all that is there."""
        batch = _Batch()
        item = self._queue.get()
        while True:
            if item is None:
                batch.last = True
                return batch
            if isinstance(item, _Commit):
                batch.commits.append(item)
            else:
                batch.compactions.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch

    def _write_commits(self, commits: list[_Commit]) -> None:
        assert self._loop is not None
        stale = [commit for commit in commits if commit.epoch <= self._failed_epoch]
        fresh = [commit for commit in commits if commit.epoch > self._failed_epoch]
        if stale:
            self._loop.call_soon_threadsafe(self._failed, stale, StoreError("a commit before this one failed"))
        if not fresh:
            return
        rows = [
            (commit.revision << _SHIFT | place, write.key, write.value)
            for commit in fresh
            for place, write in enumerate(commit.writes)
        ]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT INTO log VALUES (?, ?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            log.exception("%s: a commit failed", self._path)
            self._failed_epoch = fresh[0].epoch
            self._roll_back()
            self._loop.call_soon_threadsafe(self._failed, fresh, error)
        else:
            self._loop.call_soon_threadsafe(self._durable, fresh)

    def _compact(self, compaction: _Compaction) -> None:
        ranges = [(rev << _SHIFT, (rev + 1) << _SHIFT, key) for rev, key in compaction.rows]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("DELETE FROM log WHERE id >= ? AND id < ? AND key = ?", ranges)
            self._database.execute("UPDATE state SET number = ? WHERE name = 'compacted'", (compaction.oldest,))
            self._database.execute("COMMIT")
        except sqlite3.Error:
            log.exception("%s: compaction failed; its rows stay until the file is opened again", self._path)
            self._roll_back()

    def _roll_back(self) -> None:
        try:
            self._database.execute("ROLLBACK")
        except sqlite3.Error:  # SQLite has already rolled back
            pass

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _load(self) -> None:
        """The rows up to the compacted revision are the state then; every later one is an event."""
        (compacted,) = self._database.execute("SELECT number FROM state WHERE name = 'compacted'").fetchone()
        self.log.oldest = self.log.revision = compacted
        commit: list[Write] = []
        at = 0
        for number, key, value in self._database.execute("SELECT id, key, value FROM log ORDER BY id"):
            revision = number >> _SHIFT
            if revision <= compacted:
                self.log.restore(revision, Write(key, value, 0))
                continue
            if revision != at and commit:
                self.log.append(at, commit, wake=False)
                commit = []
            at = revision
            commit.append(Write(key, value, 0))
        if commit:
            self.log.append(at, commit, wake=False)


def _replaced(dropped: Sequence[StoreEvent]) -> list[tuple[int, str]]:
    """The rows nobody needs once these events are forgotten: what each replaced, and a deletion's own."""
    rows = [(event.previous_revision, event.key) for event in dropped if event.previous_revision]
    return rows + [(event.revision, event.key) for event in dropped if event.value is None]


def _open(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA wal_autocheckpoint = 4000")  # pages of 4 KB
            database.executescript(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
    except sqlite3.Error as error:
        hint = _BUSY if "locked" in str(error) else "is it a kubesvc database, and writable?"
        raise StoreError(f"{path}: {error}; {hint}") from error
    return database
