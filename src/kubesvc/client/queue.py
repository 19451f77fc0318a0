"""A work queue of keys: each key once, never two workers on one key, back-off with jitter for what failed.

What nobody waits for is added at leisure: while the event loop is busy it trickles in, a few keys every few turns of
the loop; while the loop is idle it is worked on at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Generic, TypeVar

from kubesvc.api.errors import Conflict
from kubesvc.client.session import Unreachable

log = logging.getLogger(__name__)

K = TypeVar("K")

_BUSY = 0.002  # seconds: a loop whose turn takes longer has others to serve
_SHARE = 9  # turns that those get for each one in which keys at leisure are let in
_AT_ONCE = 8  # keys let in together


class WorkQueue(Generic[K]):
    """Keys to reconcile. Adding a key already waiting does nothing; one being worked on is worked on again after."""

    def __init__(self, name: str, *, first_delay: float = 0.02, max_delay: float = 30.0) -> None:
        self.name = name
        self._first_delay, self._max_delay = first_delay, max_delay  # seconds
        self._waiting: OrderedDict[K, None] = OrderedDict()  # the first of a dict is found in linear time
        self._leisurely: OrderedDict[K, None] = OrderedDict()
        self._leisure = asyncio.Event()  # something is leisurely
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._idle: deque[asyncio.Future[None]] = deque()  # workers waiting for a key

    def __len__(self) -> int:
        return len(self._waiting) + len(self._leisurely) + len(self._working)

    def add(self, key: K) -> None:
        self._leisurely.pop(key, None)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = None
            while self._idle:  # one key wakes one worker
                worker = self._idle.popleft()
                if not worker.done():
                    worker.set_result(None)
                    break

    def add_at_leisure(self, key: K) -> None:
        """Add `key` when the loop has time for it; an `add` meanwhile overtakes."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._leisurely[key] = None
            self._leisure.set()

    def add_after(self, key: K, delay: float) -> None:
        """Add `key` after `delay` seconds, or when an earlier call has it come back sooner."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + delay:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._due, key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    async def run(self, reconcile: Callable[[K], Awaitable[None]], *, workers: int = 1) -> None:
        """Work until cancelled. A key whose reconcile raises comes back after a back-off; a Conflict at once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._let_in())
            for _ in range(workers):
                group.create_task(self._work(reconcile))

    async def _let_in(self) -> None:
        """Add what is leisurely, a few keys at a time, as the loop has time."""
        loop = asyncio.get_running_loop()
        while True:
            await self._leisure.wait()
            began = loop.time()
            await asyncio.sleep(0)
            turn = loop.time() - began
            if turn > _BUSY or self._waiting:
                await asyncio.sleep(max(turn, _BUSY) * _SHARE)
            for key in list(islice(self._leisurely, _AT_ONCE)):
                self.add(key)
            if not self._leisurely:
                self._leisure.clear()

    async def _take(self) -> K:
        while not self._waiting:
            worker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(worker)
            await worker
        key, _ = self._waiting.popitem(last=False)
        self._working.add(key)
        return key

    async def _work(self, reconcile: Callable[[K], Awaitable[None]]) -> None:
        while True:
            key = await self._take()
            try:
                await reconcile(key)
                self._failures.pop(key, None)
            except Exception as error:  # the top of a task: log, requeue
                self._retry(key, error)
            finally:
                self._working.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _retry(self, key: K, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(self._first_delay * 2 ** min(failures - 1, 20), self._max_delay) * random.uniform(0.5, 1.0)
        if isinstance(error, Conflict | Unreachable):
            log.debug("%s %s: %s; again in %.2f s", self.name, key, error, delay)
        else:
            log.warning("%s %s: %s; again in %.2f s", self.name, key, error, delay, exc_info=error)
        self.add_after(key, delay)
