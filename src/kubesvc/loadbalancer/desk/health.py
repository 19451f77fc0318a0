"""Health checks as a cloud makes them: each node asked at an interval, believed after some answers in a row."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from kubesvc.loadbalancer.providers.desk.model import Check

log = logging.getLogger(__name__)

SHORTEST = 1.0  # seconds an answer may always take, however much time is pressed together

Asked = tuple[str, Check]  # a node's address, and how it is asked


class Health:
    """Who is healthy. `speed` divides the cloud's intervals and time-outs; `changed` is told of each change."""

    def __init__(self, speed: float, changed: Callable[[], None]) -> None:
        self._speed = speed
        self._changed = changed
        self._tasks: dict[Asked, asyncio.Task[None]] = {}
        self._healthy: set[Asked] = set()

    def is_healthy(self, address: str, check: Check | None) -> bool:
        return check is None or (address, check) in self._healthy

    def watch(self, wanted: Iterable[Asked]) -> None:
        """Ask these from now on, and nobody else."""
        keep = set(wanted)
        for asked in self._tasks.keys() - keep:
            self._tasks.pop(asked).cancel()
            self._healthy.discard(asked)
        for asked in keep - self._tasks.keys():
            self._tasks[asked] = asyncio.create_task(self._follow(*asked))

    def close(self) -> None:
        self.watch(())

    async def _follow(self, address: str, check: Check) -> None:
        row = 0  # answers in a row that say other than what is believed
        while True:
            began = time.monotonic()
            healthy = (address, check) in self._healthy
            good = await _ask(address, check, max(check.timeout / self._speed, SHORTEST))
            row = row + 1 if good != healthy else 0
            if row >= (check.unhealthy if healthy else check.healthy):
                row = 0
                (self._healthy.discard if healthy else self._healthy.add)((address, check))
                word = "unhealthy" if healthy else "healthy"
                log.info("%s is %s: %s port %d", address, word, check.protocol, check.port)
                self._changed()
            await asyncio.sleep(max(0.01, began + check.interval / self._speed - time.monotonic()))


async def _ask(address: str, check: Check, patience: float) -> bool:
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(address, check.port)
            try:
                if check.protocol == "tcp":
                    return True
                request = f"GET {check.path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                return (await reader.readline()).split(b" ")[1:2] == [b"200"]
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
