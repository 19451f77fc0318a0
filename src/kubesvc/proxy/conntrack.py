"""Ends UDP flows that go to endpoints which are gone, in the background.

    a change that concerns UDP was programmed ─► dump (a thread) ─► stale? (pure) ─► delete (a thread)

Reading and deleting never hold up a change: they have a thread and a socket of their own, and what is decided in the
loop is one look-up for each pair of frontend and endpoint, not for each flow. A pass rests five times as long as it
took. Looked at again every minute, in case a flow slipped past.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.kernel.conntrack import Flow
from kubesvc.proxy.config import LOOPBACK, ProxyConfig
from kubesvc.proxy.layout import UDP, port_data, tail
from kubesvc.proxy.stale import Knowledge, Path, stale

log = logging.getLogger(__name__)

_EVERY = 60.0  # seconds, when nothing changes
_REST = 5  # times as long as the pass took
_SHORTEST_REST = 0.05  # seconds


class Tracking(Protocol):
    """What `kernel.conntrack.Conntrack` is to this module."""

    def flows(self, protocol: int) -> list[Flow]: ...

    def delete(self, flows: Iterable[Flow]) -> int: ...


class Reconciler:
    """Feed it with `*_changed` and `programmed`; `run` works until cancelled."""

    def __init__(
        self,
        tracking: Tracking,
        config: ProxyConfig,
        serving: Callable[[bytes], Collection[bytes] | None],
        done: Callable[[float, int], None] = lambda seconds, deleted: None,
    ) -> None:
        """`serving` as in `stale.Knowledge`; `done` hears the seconds and the deletions of each pass."""
        self._tracking = tracking
        self._serving = serving
        self._done = done
        self.service_cidrs, self._pod_cidrs = config.service_cidrs, config.pod_cidrs
        self._orphaned: Collection[bytes] = frozenset(ip.packed for ip in (*config.node_port_ips(), LOOPBACK))
        self._removed: set[bytes] = set()
        self._touched = True  # what went while no proxy ran is looked for at the first programming
        self._wake = asyncio.Event()
        self._complained = False

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        self._touched = self._touched or any(
            port.protocol == "UDP" for service in (old, new) if service is not None for port in service.spec.ports
        )

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self._touched = self._touched or any(
            port.protocol == "UDP" for found in (old, new) if found is not None for port in found.ports or ()
        )

    def programmed(self, removed: Iterable[bytes]) -> None:
        """What was touched is in force now; the frontends with these keys are gone."""
        self._removed.update(key for key in removed if key[-8] == UDP)
        if self._touched or self._removed:
            self._touched = False
            self._wake.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            started = time.perf_counter()
            try:
                deleted = await self._pass()
            except OSError as error:
                log.log(
                    logging.DEBUG if self._complained else logging.WARNING,
                    "UDP flows to endpoints that are gone can't be ended: %s (is CAP_NET_ADMIN missing?)",
                    error,
                )
                self._complained = True
            else:
                self._complained = False
                self._done(time.perf_counter() - started, deleted)
            await asyncio.sleep(max(_SHORTEST_REST, _REST * (time.perf_counter() - started)))

    async def _pass(self) -> int:
        """One look at every flow; returns how many were ended."""
        removed, self._removed = self._removed, set()
        try:
            paths = await asyncio.to_thread(self._read)
            known = Knowledge(self._serving, removed, self.service_cidrs, self._orphaned, self._pod_cidrs)
            gone = [flow for path in stale(paths, known) for flow in paths[path]]
            deleted = await asyncio.to_thread(self._tracking.delete, gone) if gone else 0
        except OSError:
            self._removed |= removed
            raise
        self._orphaned = ()
        if deleted:
            log.info("%d UDP flows to endpoints that are gone were ended", deleted)
        return deleted

    def _read(self) -> dict[Path, list[Flow]]:
        """The flows, by where they go."""
        paths: dict[Path, list[Flow]] = defaultdict(list)
        for flow in self._tracking.flows(UDP):
            key = flow.destination + tail(UDP, flow.port)
            paths[Path(key, flow.answerer + port_data(flow.answerer_port), flow.translated)].append(flow)
        return paths
