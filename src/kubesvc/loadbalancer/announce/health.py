"""Whether this node can serve what it announces: its proxy's /healthz, asked once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiohttp

log = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds
TOLERATED = 2  # failures in a row until it counts


class Health:
    """`healthy` until `TOLERATED` questions in a row weren't answered with 200."""

    def __init__(self, url: str, changed: Callable[[], None]) -> None:
        self.healthy = True
        self._url, self._changed = url, changed

    async def run(self) -> None:
        """Until cancelled; at once done when there is nobody to ask."""
        if not self._url:
            return
        failures = 0
        timeout = aiohttp.ClientTimeout(total=INTERVAL)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                problem = await self._problem(client)
                failures = failures + 1 if problem else 0
                if (healthy := failures < TOLERATED) != self.healthy:
                    self.healthy = healthy
                    what = "healthy again: announcing" if healthy else f"{problem}: announcing nothing"
                    log.warning("%s: %s", self._url, what)
                    self._changed()
                await asyncio.sleep(INTERVAL)

    async def _problem(self, client: aiohttp.ClientSession) -> str:
        try:
            async with client.get(self._url) as response:
                return "" if response.status == 200 else f"status {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return str(error) or type(error).__name__
