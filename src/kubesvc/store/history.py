"""History that memory has forgotten, read from the file: watches and lists that reach back further.

    oldest (file) ─────────── events on disk ───────────► log.oldest (memory) ── events in memory ──► now
         │                                                     │
         └ a watch from here reads the file …                  └ … and goes on in memory, where it has caught up

Reading happens in a thread with a connection of its own, so that neither the event loop nor the writer waits.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from kubesvc.store import database
from kubesvc.store.log import Log, Watch
from kubesvc.store.protocol import Compacted, Page, StoreEvent

T = TypeVar("T")

_AT_ONCE = 500  # events


class History:
    """Reads of revisions after `oldest`, which the store moves on before it compacts."""

    def __init__(self, path: Path, oldest: int) -> None:
        self.oldest = oldest
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    async def page(self, prefix: str, *, limit: int, start: str, revision: int) -> Page:
        """As Store.list."""
        state = await self._read(revision, lambda at: database.state_at(at, revision, prefix))
        keys = [key for key in sorted(state) if key >= start]
        chosen = keys[:limit] if limit else keys
        rest = len(keys) - len(chosen)
        return Page([state[key] for key in chosen], revision, keys[len(chosen)] if rest else None, rest)

    async def events(self, prefix: str, after: int, until: int) -> list[StoreEvent]:
        """The first events after revision `after`: fewer than asked for means all up to `until`. Raises Compacted."""
        return await self._read(after, lambda at: database.events(at, after, until, prefix, _AT_ONCE))

    async def _read(self, revision: int, query: Callable[[sqlite3.Connection], T]) -> T:
        if revision < self.oldest:
            raise Compacted(self.oldest)
        found = await asyncio.to_thread(self._query, query)
        if revision < self.oldest:  # compacted meanwhile: what was found may lack something
            raise Compacted(self.oldest)
        return found

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock, database.explained(self._path):
            if self._connection is None:
                self._connection = database.reader(self._path)
            return query(self._connection)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class Resumable:
    """A watch in memory that falls back on the file wherever memory has forgotten what comes next.

    Safe to cancel while it waits, and then to go on.
    """

    def __init__(self, log: Log, history: History, prefix: str, since: int) -> None:
        self._log, self._history, self._prefix, self._since = log, history, prefix, since
        self._read: deque[StoreEvent] = deque()  # from the file, not yet given
        self._memory: Watch | None = log.watch(prefix, since)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoreEvent | int:
        while True:
            if self._read:
                return self._gave(self._read.popleft())
            if self._memory is None:
                await self._catch_up()
                continue
            try:
                return self._gave(await anext(self._memory))
            except Compacted:
                self._memory = None

    def take(self) -> StoreEvent | None:
        """The next event, where memory already has it."""
        if self._read or self._memory is None:
            return None
        try:
            event = self._memory.take()
        except Compacted:
            self._memory = None
            return None
        if event is not None:
            self._since = event.revision
        return event

    def _gave(self, event: StoreEvent | int) -> StoreEvent | int:
        self._since = event if isinstance(event, int) else event.revision
        return event

    async def _catch_up(self) -> None:
        until = self._log.revision
        found = await self._history.events(self._prefix, self._since, until)
        if len(found) < _AT_ONCE:  # that was all there is up to `until`
            self._memory = self._log.watch(self._prefix, until)
            if not found:
                self._since = until
        self._read.extend(found)
