"""Watches over the data plane as it stands in the kernel: our table, and other people's filters on the packets' way.

    somebody deletes, flushes, edits our table ─► heard at once ─► everything is programmed again
    somebody's chain drops our packets         ─► the log and an Event on the Node, with the command that opens it

Nobody listens while much is being programmed: the kernel would have to tell each of a hundred thousand elements. What
happened meanwhile shows when the table is looked for afterwards. Two proxies of one table would undo each other
for ever, so repairs come at growing intervals. Elements that the kernel itself or an administrator may take out of
maps which only remember (affinity) are nobody's damage. Changes of iptables-legacy are not told: it is read once a
minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from kubesvc.api.registry import NODE
from kubesvc.client.events import WARNING, Recorder
from kubesvc.kernel.descriptors import readable
from kubesvc.kernel.iptables import LegacyFilters
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.foreign import BaseChain, Filters
from kubesvc.kernel.nft.monitor import Monitor, Notice
from kubesvc.proxy import maps, obstacles
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.doors import Doors
from kubesvc.proxy.layout import LAYOUT, TABLE
from kubesvc.proxy.obstacles import Obstacle

if TYPE_CHECKING:
    from kubesvc.proxy.main import Proxy, Sync

log = logging.getLogger(__name__)

_INET = 1
_FIRST_REPAIR, _LONGEST_REPAIR = 0.05, 5.0  # seconds between hearing of damage and repairing it
_CALM = 30.0  # seconds without damage after which it is repaired at once again
_SETTLING = 0.5  # seconds after a change of others' filters until they are read: they come in bursts
_LOOK_AGAIN = 60.0  # seconds
_REST = 20  # times as long as reading them took
_OURS = {*maps.DATA_MAPS, maps.CLASSES.name}


class Guard:
    """Registers with `proxy` when made; `run` works until cancelled."""

    def __init__(self, proxy: Proxy, connection: Connection, recorder: Recorder, config: ProxyConfig) -> None:
        self._proxy, self._connection, self._recorder = proxy, connection, recorder
        self._node_name, self._pod_cidrs = config.node_name, config.pod_cidrs
        self._monitor = connection.monitor = Monitor(connection.port)
        self._filters, self._legacy = Filters(), LegacyFilters()
        self._delay = _FIRST_REPAIR
        self._repairs = 0.0  # the loop's time of the last one
        self._look: asyncio.Event = asyncio.Event()  # others' filters are to be read
        self._look.set()
        self._known: set[Obstacle] = set()
        self._doors = Doors(config.node_ips, self._look.set, proxy_name=config.proxy_name)
        proxy.services.on_change(self._doors.service_changed)
        proxy.slices.on_change(self._doors.slice_changed)
        for informer in (proxy.services, proxy.slices):
            informer.on_sync(self._look.set)
        proxy.on_sync(self._programmed)
        proxy.on_refusal(lambda _error: self._stop_listening())

    def close(self) -> None:
        self._monitor.close()
        self._filters.close()
        self._legacy.close()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_table())
            group.create_task(self._watch_filters())

    # ── our table ──

    def _programmed(self, sync: Sync) -> None:
        if sync.whole:
            self._monitor.listen()
        if sync.whole or self._monitor.gap:
            self._monitor.gap = False
            if self._connection.comment(TABLE) != LAYOUT:  # taken away while nobody listened
                asyncio.get_running_loop().call_later(self._delay, self._proxy.rebuild)

    async def _watch_table(self) -> None:
        while True:
            await readable(self._monitor.fileno())
            damage, culprit = self._hear()
            if damage is not None and self._proxy.programmed.is_set():
                self._stop_listening()
                await self._repair(damage, culprit)

    def _stop_listening(self) -> None:
        """Until everything is programmed again."""
        self._monitor.pause()
        self._monitor.forget()

    def _hear(self) -> tuple[Notice | None, str]:
        """The damage to our table that says most, and the program that did it; the rest is about others' filters."""
        damage: Notice | None = None
        culprit = ""
        for notice in self._monitor.read():
            if notice.program:
                culprit = culprit or (notice.program if damage is not None else "")
            elif not notice.table or _is_ours(notice):
                damage = notice if damage is None or notice.what == "delete table" else damage
            else:
                self._look.set()
        return damage, culprit

    async def _repair(self, damage: Notice, culprit: str) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._repairs > _CALM:
            self._delay = _FIRST_REPAIR
        what = f"{damage.what} {damage.name}".rstrip() if damage.table else "changes faster than they could be heard"
        log.warning(
            "table inet %s was changed by %s (%s): programming everything again in %.2f s",
            TABLE,
            culprit or "somebody else",
            what,
            self._delay,
        )
        await asyncio.sleep(self._delay)
        self._delay = min(self._delay * 2, _LONGEST_REPAIR)
        self._repairs = loop.time()
        self._proxy.rebuild()

    # ── other people's filters ──

    async def _watch_filters(self) -> None:
        took = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._look.wait()
            await asyncio.sleep(max(_SETTLING, _REST * took))
            self._look.clear()
            started = time.perf_counter()
            try:
                chains = await asyncio.to_thread(self._read)  # another's may be long
            except OSError as error:
                log.warning("other filters of this node can't be read: %s", error)
                continue
            took = time.perf_counter() - started
            # Before all are known, a closed chain would be reported for some of the ports, and once more for all.
            known = self._proxy.services.synced.is_set() and self._proxy.slices.synced.is_set()
            found = set(obstacles.find(chains, self._pod_cidrs, self._doors.all() if known else ()))
            for gone in self._known - found:
                log.info("chain %s no longer stands in the way of %s", gone.chain, gone.passage)
            for obstacle in sorted(found - self._known, key=str):
                await self._report(obstacle)
            self._known = found

    def _read(self) -> list[BaseChain]:
        return [*self._filters.read(TABLE), *self._legacy.read()]

    async def _report(self, obstacle: Obstacle) -> None:
        log.warning("%s", obstacle)
        await self._proxy.node.synced.wait()
        node = self._proxy.node.get("", self._node_name)
        if node is not None:
            self._recorder.record("kube-proxy", NODE, node, WARNING, "PacketsMayBeDropped", str(obstacle))


def _is_ours(notice: Notice) -> bool:
    if notice.table != TABLE or notice.family != _INET:
        return False
    return notice.what != "delete element of" or notice.name in _OURS
