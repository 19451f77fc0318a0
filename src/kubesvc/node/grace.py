"""The time a container gets between being told to end and being killed; it may be shortened meanwhile, not extended."""

from __future__ import annotations

import asyncio


class Grace:
    """Seconds from now. `hurry` may be called from anywhere on the same loop."""

    def __init__(self, seconds: float) -> None:
        self._deadline = self._now() + seconds
        self._shortened = asyncio.Event()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @property
    def left(self) -> float:
        return self._deadline - self._now()

    def hurry(self, seconds: float) -> None:
        """No more than `seconds` from now."""
        self._deadline = min(self._deadline, self._now() + seconds)
        self._shortened.set()

    def at_least(self, seconds: float) -> None:
        self._deadline = max(self._deadline, self._now() + seconds)

    async def wait(self, ended: asyncio.Event) -> bool:
        """Wait for `ended`; False when the time is over first."""
        while not ended.is_set() and (left := self.left) > 0:
            self._shortened.clear()
            waits = [asyncio.ensure_future(ended.wait()), asyncio.ensure_future(self._shortened.wait())]
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()
        return ended.is_set()
