"""What there is in the cloud, as far as this process knows: listed once in a while, and kept by what it does itself.

One list a kind answers for all Services. A list that began before a write ended may not show it: writes of meanwhile
are put over it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.providers.gcp.compute import Compute
from kubesvc.loadbalancer.providers.gcp.resources import Found, Kind, Site


class Inventory:
    """`ttl`: seconds until it is listed anew."""

    def __init__(self, compute: Compute, site: Site, ttl: float, clock: Callable[[], float]) -> None:
        self._compute, self._site, self._ttl, self._clock = compute, site, ttl, clock
        self._objects: dict[Kind, dict[str, JSON]] = {}
        self._members: dict[str, frozenset[str]] = {}
        self._age = 0  # counts `forget`; a list is of the age at which it began
        self._listed: tuple[int, float] = (-1, 0.0)  # its age and time
        self._writes: list[Callable[[], None]] = []  # put while a list is under way
        self._busy = asyncio.Lock()

    async def look(self) -> Found:
        """Never from a list that began before the last `forget`."""
        age = self._age
        if not self._fresh(age):
            async with self._busy:
                if not self._fresh(age):
                    await self._list()
        return Found(self._objects, self._members)

    def forget(self) -> None:
        """Something may be other than it seems: the next look is a new one."""
        self._age += 1

    def put(self, kind: Kind, name: str, found: JSON | None) -> None:
        def write() -> None:
            known = self._objects.setdefault(kind, {})
            if found is None:
                known.pop(name, None)
                if kind is Kind.GROUP:
                    self._members.pop(name, None)
            else:
                known[name] = found

        self._write(write)

    def put_members(self, group: str, members: frozenset[str]) -> None:
        def write() -> None:
            self._members[group] = members

        self._write(write)

    def _write(self, write: Callable[[], None]) -> None:
        write()
        if self._busy.locked():
            self._writes.append(write)

    def _fresh(self, age: int) -> bool:
        listed, at = self._listed
        return listed >= age and self._clock() - at < self._ttl

    async def _list(self) -> None:
        begun = self._age, self._clock()
        self._writes.clear()
        prefix = self._site.prefix
        lists = await asyncio.gather(*(self._compute.list(k, "" if k is Kind.ADDRESS else prefix) for k in Kind))
        objects = dict(zip(Kind, lists, strict=True))
        groups = [name for name in objects[Kind.GROUP] if name.partition("/")[2] == prefix]
        members = await asyncio.gather(*(self._compute.members(name) for name in groups))
        self._objects, self._members = objects, dict(zip(groups, members, strict=True))
        for write in self._writes:
            write()
        self._listed = begun
