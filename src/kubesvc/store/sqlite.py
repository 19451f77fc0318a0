"""A store in one SQLite file: durable before it is acknowledged, many commits to one fsync.

The event loop decides (preconditions against the log and what is on its way), one thread writes:

    commit ─► preconditions ─► queue ─► writer: all that has queued up, one transaction, one fsync ─► log ─► watchers
                  ▲                                                                             │
                  └── what is on its way: key -> revision ◄──────── taken away when durable ────┘

Readers never see a commit that isn't durable. A commit that would fail against one on its way waits for that one first,
so that a refusal speaks of durable facts too. What memory has forgotten is read from the file, for HISTORY_SECONDS at
least; then it is compacted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kubesvc.store import database
from kubesvc.store.history import History, Resumable
from kubesvc.store.log import HISTORY_BYTES, MARK_SECONDS, Log, Reads, first_failure, refuse_oversized
from kubesvc.store.protocol import (
    MAX_BYTES,
    MAX_OPERATIONS,
    Check,
    Compacted,
    Page,
    StoreError,
    Unwritable,
    Watch,
    Write,
)

log = logging.getLogger(__name__)

HISTORY_SECONDS = 300.0
_MARK_EVERY = 10.0  # seconds between two notes of how far the store was when
_COMPACT_AT_ONCE = 20_000  # revisions: commits wait meanwhile


class _Commit(msgspec.Struct):
    """A commit on its way to the disk. `epoch` counts failed batches: what queued behind one must fail as well."""

    first: int
    writes: Sequence[Write]
    epoch: int
    done: asyncio.Future[int]


class _Compaction(msgspec.Struct, frozen=True):
    """Forget all history up to this revision."""

    until: int


class _Probe(msgspec.Struct, frozen=True):
    """See whether a write gets through."""

    done: asyncio.Future[None]


class _Batch(msgspec.Struct):
    commits: list[_Commit] = []
    probes: list[_Probe] = []
    compactions: list[_Compaction] = []
    last: bool = False


class SqliteStore(Reads):
    """Opens and loads `path` at once, and holds it alone. Raises StoreError when it can't be opened.

    `clock` gives seconds, for the age of history.
    """

    def __init__(
        self,
        path: Path,
        *,
        history_bytes: int = HISTORY_BYTES,
        history_seconds: float = HISTORY_SECONDS,
        mark_seconds: float = MARK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = Log(history_bytes=history_bytes, mark_seconds=mark_seconds)
        self._path = path
        self._history_seconds, self._clock = history_seconds, clock
        self._lock = database.hold(path)
        try:
            self._database = database.connect(path)
            try:
                self.history = self._load(history_bytes)
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise
        self._leaving: list[_Commit] = []  # on their way to the queue
        self._queue: queue.SimpleQueue[Sequence[_Commit] | _Compaction | _Probe | None] = queue.SimpleQueue()
        self._next = self.log.revision + 1
        self._marks: deque[tuple[float, int]] = deque([(clock(), self.log.revision)])  # when the store was how far
        self._on_the_way: dict[str, tuple[_Commit, int]] = {}  # key -> the newest commit that writes it, its revision
        self._epoch = 0
        self._failed_epoch = -1  # set by the writer
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = threading.Thread(target=self._write, name="sqlite-writer", daemon=True)
        self._writer.start()

    def _load(self, history_bytes: int) -> History:
        """The state where memory begins, and every event from there on."""
        with database.explained(self._path):
            start = database.start_of_memory(self._database, history_bytes)
            self.log.restore(database.state_at(self._database, start), start)
            for event in database.events(self._database, start, 1 << 62):
                self.log.append(event.revision, [Write(event.key, event.value, 0)], wake=False)
            return History(self._path, database.compacted(self._database))

    async def commit(self, writes: Sequence[Write], checks: Sequence[Check] = ()) -> int:
        refuse_oversized(writes, checks, MAX_OPERATIONS, MAX_BYTES)
        self._loop = asyncio.get_running_loop()
        while failed := first_failure(self._pending(writes, checks), self.log, writes, checks):
            if (ahead := self._on_the_way.get(failed.key)) is None:
                raise failed
            await asyncio.wait([ahead[0].done])
        if self._closed:
            raise StoreError(f"{self._path} is closed")
        commit = _Commit(self._next, writes, self._epoch, self._loop.create_future())
        for revision, write in enumerate(writes, self._next):
            self._on_the_way[write.key] = (commit, 0 if write.value is None else revision)
        self._next += len(writes)
        if not self._leaving:
            self._loop.call_soon(self._send)
        self._leaving.append(commit)
        # The caller may be cancelled; the commit goes its way all the same.
        return await asyncio.shield(commit.done)

    def _send(self) -> None:
        """Hand the writer at once all that this turn of the event loop brought: waking a thread is dear."""
        leaving, self._leaving = self._leaving, []
        self._queue.put(leaving)

    def _pending(self, writes: Sequence[Write], checks: Sequence[Check]) -> dict[str, int]:
        """Keys named here that are on their way -> the revision they will have."""
        if not self._on_the_way:
            return {}
        keys = (*(w.key for w in writes), *(c.key for c in checks))
        return {key: ahead[1] for key in keys if (ahead := self._on_the_way.get(key))}

    # ── reads that reach back further than memory ────────────────────────────────────────────────────────────────

    async def list(self, prefix: str, *, limit: int = 0, start: str = "", revision: int = 0) -> Page:
        try:
            return self.log.page(prefix, limit=limit, start=start, revision=revision)
        except Compacted:
            return await self.history.page(prefix, limit=limit, start=start, revision=revision)

    def watch(self, prefix: str, since: int) -> Watch:
        return Resumable(self.log, self.history, prefix, since)

    async def check(self) -> None:
        if self._closed:
            raise StoreError(f"{self._path} is closed")
        self._loop = asyncio.get_running_loop()
        probe = _Probe(self._loop.create_future())
        self._queue.put(probe)
        await probe.done
        await asyncio.to_thread(database.look, self._path)

    async def close(self) -> None:
        """Write what is on its way, then let the file go."""
        if self._closed:
            return
        self._closed = True
        self._send()
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        await self.history.close()
        self._database.close()
        os.close(self._lock)

    # ── in the event loop, when the writer is done ───────────────────────────────────────────────────────────────

    def _durable(self, commits: Sequence[_Commit]) -> None:
        for commit in commits:
            self.log.append(commit.first, commit.writes)
            self._arrived(commit)
            if not commit.done.done():
                commit.done.set_result(commit.first + len(commit.writes) - 1)
        self.log.trim()
        self._age()

    def _age(self) -> None:
        """Have compacted what is both too old and no longer in memory."""
        now = self._clock()
        if now - self._marks[-1][0] >= _MARK_EVERY:
            self._marks.append((now, self.log.revision))
        until = 0
        while self._marks and now - self._marks[0][0] >= self._history_seconds and len(self._marks) > 1:
            until = self._marks.popleft()[1]
        until = min(until, self.log.oldest)
        while self.history.oldest < until:
            self.history.oldest = min(until, self.history.oldest + _COMPACT_AT_ONCE)
            self._queue.put(_Compaction(self.history.oldest))

    def _failed(self, commits: Sequence[_Commit], error: StoreError) -> None:
        """Nothing of these is durable as far as is known; the next commits start from what is."""
        if commits[0].epoch == self._epoch:
            self._epoch += 1
            self._on_the_way.clear()
            self._next = self.log.revision + 1
        for commit in commits:
            if not commit.done.done():
                commit.done.set_exception(error)
                commit.done.exception()  # the caller may have been cancelled: nobody else will look

    def _arrived(self, commit: _Commit) -> None:
        for write in commit.writes:
            ahead = self._on_the_way.get(write.key)
            if ahead is not None and ahead[0] is commit:
                del self._on_the_way[write.key]

    # ── in the writer's thread ───────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        while True:
            batch = self._take()
            if batch.commits:
                self._write_commits(batch.commits)
            if batch.probes:
                self._probe(batch.probes)
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
            if isinstance(item, _Compaction):
                batch.compactions.append(item)
            elif isinstance(item, _Probe):
                batch.probes.append(item)
            else:
                batch.commits += item
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch

    def _write_commits(self, commits: Sequence[_Commit]) -> None:
        assert self._loop is not None
        stale = [commit for commit in commits if commit.epoch <= self._failed_epoch]
        fresh = [commit for commit in commits if commit.epoch > self._failed_epoch]
        if stale:
            self._loop.call_soon_threadsafe(self._failed, stale, Unwritable("a commit before this one failed"))
        if not fresh:
            return
        rows = [
            (revision, write.key, write.value, write.expected)
            for commit in fresh
            for revision, write in enumerate(commit.writes, commit.first)
        ]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            database.insert(self._database, rows)
        except sqlite3.Error as error:
            self._give_up(fresh, database.failure(self._path, error))
            return
        try:
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(fresh, database.failure(self._path, error))
        else:
            self._loop.call_soon_threadsafe(self._durable, fresh)

    def _probe(self, probes: Sequence[_Probe]) -> None:
        assert self._loop is not None
        found: StoreError | None = None
        try:
            self._database.execute("BEGIN IMMEDIATE")
            database.touch(self._database)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            found = database.failure(self._path, error)
            self._roll_back()
        self._loop.call_soon_threadsafe(_answer, probes, found)

    def _give_up(self, commits: Sequence[_Commit], error: StoreError) -> None:
        assert self._loop is not None
        log.error("%d commits failed: %s", len(commits), error)
        self._failed_epoch = commits[0].epoch
        self._roll_back()
        self._loop.call_soon_threadsafe(self._failed, commits, error)

    def _compact(self, compaction: _Compaction) -> None:
        try:
            database.compact(self._database, compaction.until)
        except sqlite3.Error as error:
            log.error("compaction failed, it is tried again later: %s", database.failure(self._path, error))
            self._roll_back()

    def _roll_back(self) -> None:
        try:
            self._database.execute("ROLLBACK")
        except sqlite3.Error:  # SQLite has already rolled back
            pass


def _answer(probes: Sequence[_Probe], found: StoreError | None) -> None:
    for probe in probes:
        if not probe.done.done():
            if found is None:
                probe.done.set_result(None)
            else:
                probe.done.set_exception(found)
