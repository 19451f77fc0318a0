"""A store that forgets everything when it is closed: for tests, and the reference the others are held to."""

from __future__ import annotations

from collections.abc import Sequence

from kubesvc.store.log import HISTORY_BYTES, MARK_SECONDS, Log, Reads, first_failure, refuse_oversized
from kubesvc.store.protocol import MAX_BYTES, MAX_OPERATIONS, Check, Write


class MemoryStore(Reads):
    def __init__(self, *, history_bytes: int = HISTORY_BYTES, mark_seconds: float = MARK_SECONDS) -> None:
        self.log = Log(history_bytes=history_bytes, mark_seconds=mark_seconds)

    async def commit(self, writes: Sequence[Write], checks: Sequence[Check] = ()) -> int:
        refuse_oversized(writes, checks, MAX_OPERATIONS, MAX_BYTES)
        if failed := first_failure({}, self.log, writes, checks):
            raise failed
        self.log.append(self.log.revision + 1, writes)
        self.log.trim()
        return self.log.revision

    async def check(self) -> None:
        return None

    async def close(self) -> None:
        return None
