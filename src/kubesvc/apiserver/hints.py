"""Which addresses and node ports are taken, as far as this server has heard: so that a dynamic choice seldom collides.

Only a hint. The claim itself is a key that must be absent when the Service is committed.
"""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api.registry import IP_ADDRESS
from kubesvc.apiserver import stored
from kubesvc.store.protocol import Compacted, Store

log = logging.getLogger(__name__)

NODE_PORTS = "claims/nodeport/"
ADDRESSES = stored.collection(IP_ADDRESS) + "-/"


class Hints:
    """Follows the claims in the store while `run` runs; told at once of what this server itself lost or won."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._taken: dict[str, set[str]] = {ADDRESSES: set(), NODE_PORTS: set()}  # prefix -> names

    def address(self, address: str) -> bool:
        return address in self._taken[ADDRESSES]

    def node_port(self, port: int) -> bool:
        return str(port) in self._taken[NODE_PORTS]

    def note(self, key: str, *, taken: bool) -> None:
        """The claim with this key is taken, or free again."""
        for prefix, names in self._taken.items():
            if key.startswith(prefix):
                change = names.add if taken else names.discard
                change(key.removeprefix(prefix))

    async def load(self) -> int:
        """Read what is claimed now; returns the revision to follow from."""
        revision = 0
        for prefix in self._taken:
            page = await self._store.list(prefix)
            self._taken[prefix] = {item.key.removeprefix(prefix) for item in page.items}
            revision = min(revision, page.revision) if revision else page.revision
        return revision

    async def run(self, since: int) -> None:
        """Follow the claims after revision `since`, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for prefix in self._taken:
                group.create_task(self._follow(prefix, since))

    async def _follow(self, prefix: str, since: int) -> None:
        while True:
            try:
                async for event in self._store.watch(prefix, since):
                    if not isinstance(event, int):
                        self.note(event.key, taken=event.value is not None)
            except Compacted:
                page = await self._store.list(prefix)
                self._taken[prefix] = {item.key.removeprefix(prefix) for item in page.items}
                since = page.revision
