"""Whether the store takes writes, for /readyz: tried once a second at most, however many ask."""

from __future__ import annotations

import asyncio

from kubesvc.store.protocol import Store, StoreError

_FRESH = 1.0  # seconds


class StoreCheck:
    """Whether the store takes writes, as it was found to be within the last second."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._trying: asyncio.Task[str] | None = None
        self._since = 0.0

    async def found(self) -> str:
        """ok, or why not and what to do."""
        now = asyncio.get_running_loop().time()
        if self._trying is None or (self._trying.done() and now - self._since >= _FRESH):
            self._trying, self._since = asyncio.create_task(self._try(), name="store-check"), now
        return await asyncio.shield(self._trying)

    async def _try(self) -> str:
        try:
            await self._store.check()
        except StoreError as error:
            return f"failed: {error}"
        return "ok"
