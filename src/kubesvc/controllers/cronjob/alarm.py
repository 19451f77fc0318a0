"""One timer for many keys: it is set for the one that is due first, by the clock on the wall.

A loop's own time stands still while a machine sleeps, and hears nothing of a clock that is set. So the timer comes back
once a minute to look at the clock; without a key there is no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

K = TypeVar("K")

LOOK = 60.0  # seconds


class Alarm(Generic[K]):
    """`ring` is called with each key whose time has come, once."""

    def __init__(self, now: Callable[[], datetime], ring: Callable[[K], None]) -> None:
        self._now, self._ring = now, ring
        self._due: dict[K, datetime] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._first: datetime | None = None  # what the timer is set for

    def set(self, key: K, due: datetime | None) -> None:
        """Ring for `key` at `due` and at no other time; None: not at all."""
        if due is None:
            self._due.pop(key, None)
        else:
            self._due[key] = due
        self._wind()

    def _wind(self) -> None:
        first = min(self._due.values(), default=None)
        if first == self._first:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._first = None, first
        if first is not None:
            delay = min(max((first - self._now()).total_seconds(), 0.0), LOOK)
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        now = self._now()
        self._first = None
        for key in [key for key, due in self._due.items() if due <= now]:
            del self._due[key]
            self._ring(key)
        self._wind()
