"""What runs beside the programming, and never holds it up: health and metrics, conntrack, the watch over our table.

    Proxy ──on_sync, on_refusal, informers──► health, metrics ─► HTTP
                                            ► conntrack reconciler
                                            ► report of what is in force ─► the node's Lease
                                            ► localhost: the way for 127.0.0.1, the forwarders for ::1
                                            ► guard: somebody changed our table ─► Proxy.rebuild
                                                     somebody's filter drops our packets ─► log, Event

One that fails is logged and started again; the data plane goes on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.nodes import Node
from kubesvc.client.events import Recorder
from kubesvc.client.session import Session
from kubesvc.kernel.conntrack import Conntrack
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.transaction import NftError
from kubesvc.proxy import localhost
from kubesvc.proxy.addresses import Addresses
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.conntrack import Reconciler
from kubesvc.proxy.frontends import Key
from kubesvc.proxy.guard import Guard
from kubesvc.proxy.health import Answer, Health, service_health
from kubesvc.proxy.layout import AFFINITY_SIZE, TABLE
from kubesvc.proxy.listening import ServicePorts, listen
from kubesvc.proxy.maps import AFFINITY
from kubesvc.proxy.metrics import Metrics, triggered_at
from kubesvc.proxy.policy import ours
from kubesvc.proxy.reporting import Reporter

if TYPE_CHECKING:
    from kubesvc.proxy.main import Proxy, Sync

log = logging.getLogger(__name__)

_RESTART = 1.0  # seconds
_TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
_MISSING = Answer(404, "404 page not found\n", _TEXT)


def _now() -> datetime:
    return datetime.now(UTC)


class Attendants:
    """Registers with `proxy` when made; `run` works until cancelled, `close` lets go of the kernel."""

    def __init__(
        self,
        proxy: Proxy,
        session: Session,
        config: ProxyConfig,
        connection: Connection,
        listener: socket.socket | None = None,
    ) -> None:
        """`listener`: where connections to node ports of ::1 arrive."""
        self.metrics = Metrics()
        networks = (*config.service_cidrs, *config.pod_cidrs)
        families = tuple(f"IPv{version}" for version in sorted({n.version for n in networks} or {4}))
        self.health = Health(families, _now())
        self._proxy, self._config, self._connection = proxy, config, connection
        self._triggers: list[datetime] = []  # of changes not yet in force
        recorder = Recorder(session, host=config.node_name)
        self._recorder = recorder
        self._tracking = Conntrack()
        self._flows = Reconciler(self._tracking, config, proxy.frontends.serving, self._flows_ended)
        self._guard = Guard(proxy, connection, recorder, config)
        self._reporter = Reporter(session, config.node_name)
        addresses = [str(ip) for ip in config.node_port_ips()]
        self._ports = ServicePorts(
            addresses, self._service_health, recorder, config.node_name, proxy_name=config.proxy_name
        )
        self._addresses = Addresses(config, self._moved) if config.node_port_addresses else None
        self._forwarder = None if listener is None else localhost.Forwarder(listener, proxy.frontends)
        self._datagrams = None if listener is None else localhost.DatagramForwarder(proxy.frontends)
        proxy.services.on_change(self._service_changed)
        proxy.services.on_change(self._flows.service_changed)
        proxy.services.on_change(self._ports.service_changed)
        proxy.slices.on_change(self._slice_changed)
        proxy.slices.on_change(self._flows.slice_changed)
        proxy.slices.on_change(self._reporter.slice_changed)
        proxy.node.on_change(self._node_changed)
        proxy.node.on_sync(lambda: self.health.see_node(proxy.node.get("", config.node_name)))
        proxy.on_sync(self._synced)
        proxy.on_refusal(lambda _error: self.metrics.sync_failures.inc())

    def close(self) -> None:
        self._tracking.close()
        self._guard.close()
        for part in (self._addresses, self._forwarder):
            if part is not None:
                part.close()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for what, work in (
                ("conntrack", self._flows.run),
                ("guard", self._guard.run),
                ("events", self._recorder.run),
                ("health-check node ports", self._ports.run),
            ):
                group.create_task(_keep(what, work))
            if self._addresses is not None:
                group.create_task(_keep("addresses of this node", self._addresses.run))
            if self._forwarder is not None:
                group.create_task(_keep("node ports on ::1", self._forwarder.run))
            if self._datagrams is not None:
                group.create_task(_keep("UDP node ports on ::1", self._datagrams.run))
            if self._config.report_programmed:
                group.create_task(_keep("report of what is programmed", self._reporter.run))
            if (at := self._config.healthz_address) is not None:
                group.create_task(listen(self._answer_health, *at, "health"))
            if (at := self._config.metrics_address) is not None:
                group.create_task(listen(self._answer_metrics, *at, "metrics"))

    # ── what is heard ──

    def ranges_changed(self, service_cidrs: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._flows.service_cidrs = service_cidrs

    def _service_changed(self, _old: Service | None, _new: Service | None) -> None:
        self._queued(endpoints=False)

    def _slice_changed(self, _old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self._queued(endpoints=True)
        if new is not None and self.health.updated is not None and (moment := triggered_at(new)) is not None:
            self._triggers.append(moment)

    def _queued(self, *, endpoints: bool) -> None:
        if self.health.pending is None:
            self.health.queued(_now())
        self.metrics.queued(time.time(), endpoints=endpoints)

    def _node_changed(self, _old: Node | None, new: Node | None) -> None:
        self.health.see_node(new)

    def _moved(self, config: ProxyConfig) -> None:
        self._proxy.move(config)
        self._ports.move([str(ip) for ip in config.node_port_ips()])

    def _synced(self, sync: Sync) -> None:
        if sync.whole and self._config.localhost_node_ports and self._config.configure_namespace:
            localhost.open_way()  # never before the rules that keep others out are in force
        now = _now()
        self.health.programmed(now)
        self.metrics.synced(now.timestamp(), sync.seconds, whole=sync.whole)
        triggers, self._triggers = self._triggers, []
        for moment in triggers:
            self.metrics.programming_seconds.observe(max(0.0, (now - moment).total_seconds()))
        if self._datagrams is not None:
            self._datagrams.changed(sync.changed)
        self._flows.programmed(key for key, frontend in sync.changed.items() if frontend is None)
        self._reporter.programmed(self._proxy.slices.revision)

    def _flows_ended(self, seconds: float, deleted: int) -> None:
        self.metrics.conntrack_seconds.observe(seconds)
        self.metrics.conntrack_deleted.inc(deleted)

    # ── what is answered ──

    def _service_health(self, key: Key) -> Answer:
        return service_health(*key, self._proxy.frontends.ready_here(key), self.health.healthy(_now()))

    def _answer_health(self, path: str) -> Answer:
        match path:
            case "/healthz":
                found, counter = self.health.healthz(_now()), self.metrics.healthz
            case "/livez":
                found, counter = self.health.livez(_now()), self.metrics.livez
            case _:
                return _MISSING
        counter.labels(str(found.status)).inc()
        return found

    def _answer_metrics(self, path: str) -> Answer:
        match path:
            case "/metrics":
                self._count_without_local_endpoints()
                self._count_clients()
                headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
                return Answer(200, self.metrics.render().decode(), headers)
            case "/proxyMode":
                return Answer(200, "nftables", _TEXT)
        return _MISSING

    def _count_without_local_endpoints(self) -> None:
        counts = {"internal": 0, "external": 0}
        for key, service in self._proxy.services.items.items():
            spec = service.spec
            internal, external = spec.internal_traffic_policy == "Local", spec.external_traffic_policy == "Local"
            if (internal or external) and ours(service, self._config.proxy_name):
                without = self._proxy.frontends.ready_here(key) == 0
                counts["internal"] += internal and without
                counts["external"] += external and without
        for policy, count in counts.items():
            self.metrics.no_local_endpoints.labels(policy).set(count)

    def _count_clients(self) -> None:
        for family, map_ in AFFINITY.items():
            try:
                clients = self._connection.count(TABLE, map_)
            except NftError:  # nothing is programmed yet
                clients = 0
            self.metrics.affinity_clients.labels(f"IPv{family}").set(clients)
            self.metrics.affinity_capacity.labels(f"IPv{family}").set(AFFINITY_SIZE)


async def _keep(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run until cancelled, again after a failure."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s failed; starting it again", what)
        await asyncio.sleep(_RESTART)
