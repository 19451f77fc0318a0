"""The proxy of one node: Services, EndpointSlices and its Node in, the kernel's tables out.

    informers ─► Frontends.set_* ─► (once the loop is free) take ─► Backend.apply
                                     all three synced, or a refusal ─► everything ─► Backend.resync

One turn of the loop programs all that arrived since the last one, in one batch. Nothing is programmed before the
caches are whole: half a list would take Services away. What is in force outlives this process.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import NamedTuple

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import ZONE
from kubesvc.api.nodes import Node
from kubesvc.api.registry import ENDPOINT_SLICE, NODE, SERVICE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.kernel import heap
from kubesvc.kernel.nft.connection import Connection
from kubesvc.proxy import localhost, namespace
from kubesvc.proxy.attendants import Attendants
from kubesvc.proxy.backend import Backend, BackendError, Frontend, Ranges
from kubesvc.proxy.config import LOOPBACK, LOOPBACK6, ProxyConfig
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import port_data
from kubesvc.proxy.nftables import NftablesBackend
from kubesvc.proxy.servicecidrs import Networks, ServiceCidrs
from kubesvc.proxy.slim import slim_service, slim_slice

log = logging.getLogger(__name__)

_FIRST_DELAY, _LONGEST_DELAY = 0.05, 5.0  # seconds, after a refusal


class Sync(NamedTuple):
    """A programming that the data plane accepted."""

    changed: dict[bytes, Frontend | None]
    """Frontends that are new or other than before, by key; None: gone."""
    whole: bool
    """Whether everything was programmed again."""
    seconds: float


class Proxy:
    """Wires informers to decisions and decisions to a backend."""

    def __init__(self, session: Session, config: ProxyConfig, backend: Backend, *, forwarder_port: int = 0) -> None:
        """`forwarder_port`: where `localhost.Forwarder` listens on ::1; 0: nowhere."""
        self.programmed = asyncio.Event()
        """Set once everything known is in force; not set while a resync is owed."""
        self.frontends = Frontends(
            Locality(config.node_name),
            _answering(config),
            proxy_name=config.proxy_name,
            node_ips=[ip.packed for ip in config.node_ips],
            load_balancer_ranges=[(first.packed, last.packed) for first, last in config.load_balancer_ranges],
            forwarder=LOOPBACK6.packed + port_data(forwarder_port) if forwarder_port else b"",
            masquerade_all=config.masquerade_all,
        )
        self.services = Informer[Service](session, SERVICE, Service, project=slim_service)
        self.slices = Informer[EndpointSlice](session, ENDPOINT_SLICE, EndpointSlice, project=slim_slice)
        self.node = Informer[Node](session, NODE, Node, fields=f"metadata.name={config.node_name}")
        self._backend = backend
        self._config = config
        self._service_cidrs = config.service_cidrs
        self._ranges = ranges_of(config, self._service_cidrs, None)
        self._revision = ""
        self._delay = _FIRST_DELAY
        self._turn: asyncio.Handle | None = None
        self._taken: dict[bytes, Frontend | None] = {}  # decided, and not yet accepted by the data plane
        self._on_sync: list[Callable[[Sync], None]] = []
        self._on_refusal: list[Callable[[BackendError], None]] = []
        self.services.on_change(self._service_changed)
        self.slices.on_change(self._slice_changed)
        self.node.on_change(self._node_changed)
        self._whole = False  # have all caches synced?
        for informer in (self.services, self.slices, self.node):
            informer.on_sync(self._synced)

    def on_sync(self, handler: Callable[[Sync], None]) -> None:
        """Call `handler` right after each programming. It must be quick."""
        self._on_sync.append(handler)

    def on_refusal(self, handler: Callable[[BackendError], None]) -> None:
        self._on_refusal.append(handler)

    def move(self, config: ProxyConfig) -> None:
        """The node has other addresses: `config` is as before but for these."""
        self.frontends.set_addresses(_answering(config), [ip.packed for ip in config.node_ips])
        self._wake()

    def rebuild(self) -> None:
        """Program everything again, soon: somebody else changed the data plane."""
        if self.programmed.is_set():
            self.programmed.clear()
            self._wake()

    async def run(self) -> None:
        """Follow the API until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for informer in (self.services, self.slices, self.node):
                    group.create_task(informer.run())
        finally:
            if self._turn is not None:
                self._turn.cancel()

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        changed = new or old
        assert changed is not None
        self.frontends.set_service(changed.key, new)
        self._revision = changed.metadata.resource_version
        self._wake()

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self.frontends.set_slice(old, new)
        changed = new or old
        assert changed is not None
        self._revision = changed.metadata.resource_version
        self._wake()

    def _node_changed(self, _: Node | None, new: Node | None) -> None:
        self.frontends.set_zone("" if new is None else new.metadata.labels.get(ZONE, ""))
        self._know(new)
        self._wake()

    def set_service_cidrs(self, networks: Networks) -> None:
        """Cluster IPs come from these networks now."""
        self._service_cidrs = networks
        self._know(self.node.get("", self._config.node_name))

    def _know(self, node: Node | None) -> None:
        """Have the ranges in the rules, where they are others than before."""
        ranges = ranges_of(self._config, self._service_cidrs, node)
        if ranges == self._ranges:
            return
        if ranges.pod_cidrs != self._ranges.pod_cidrs:
            log.info("the pods of this node are in %s", ", ".join(map(str, ranges.pod_cidrs)))
        self._ranges = ranges
        self._backend.know(ranges)
        self.rebuild()

    def _synced(self) -> None:
        self._whole = all(i.synced.is_set() for i in (self.services, self.slices, self.node))
        self._wake()

    def _wake(self) -> None:
        if self._whole and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._program)

    def _program(self) -> None:
        self._turn = None
        changes = self.frontends.take()
        self._taken |= changes.frontends
        whole = not self.programmed.is_set()
        started = time.perf_counter()
        try:
            if whole:
                everything = self.frontends.everything()
                self._backend.resync(everything)
                self.programmed.set()
                took = time.perf_counter() - started
                log.info("%d frontends in force, programmed in %.3f s", len(everything.frontends), took)
            elif changes:
                self._backend.apply(changes, self._revision)
        except BackendError as error:
            log.error("nothing changed in the data plane: %s; all of it again in %.2f s", error, self._delay)
            self.programmed.clear()
            self._turn = asyncio.get_running_loop().call_later(self._delay, self._program)
            self._delay = min(self._delay * 2, _LONGEST_DELAY)
            for refused in self._on_refusal:
                refused(error)
            return
        self._delay = _FIRST_DELAY
        taken, self._taken = self._taken, {}
        sync = Sync(taken, whole, time.perf_counter() - started)
        for accepted in self._on_sync:
            accepted(sync)


def _answering(config: ProxyConfig) -> list[bytes]:
    """The addresses that node ports are translated on."""
    return [ip.packed for ip in (*config.node_port_ips(), *((LOOPBACK,) if config.localhost_node_ports else ()))]


def ranges_of(config: ProxyConfig, service_cidrs: Networks, node: Node | None) -> Ranges:
    """The ranges the rules hold. Pods are those of this node where the Node says which these are, else all."""
    pods = config.pod_cidrs
    if config.pods_by_node and node is not None:
        pods = tuple(map(ip_network, node.spec.pod_cidrs or filter(None, [node.spec.pod_cidr]))) or pods
    return Ranges(service_cidrs, pods, config.localhost_node_ports)


async def run(session: Session, config: ProxyConfig) -> None:
    """Be this node's proxy until cancelled. Lives in the node's network namespace; the tables stay behind."""
    if config.configure_namespace:
        namespace.prepare(config)
    connection = Connection()
    backend = NftablesBackend(connection, ranges_of(config, config.service_cidrs, None))
    listener = localhost.listen() if config.localhost_node_ports else None
    if not config.localhost_node_ports:
        localhost.close_way(connection)
    port = listener.getsockname()[1] if listener is not None else 0
    proxy = Proxy(session, config, backend, forwarder_port=port)
    attendants = Attendants(proxy, session, config, connection, listener)

    def ranges_changed(before: Networks, now: Networks) -> None:
        log.info("cluster IPs come from %s now", ", ".join(map(str, now)))
        if config.configure_namespace:
            namespace.change_routes(config, before, now)
        attendants.ranges_changed(now)
        proxy.set_service_cidrs(now)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_settle_memory(proxy))
            group.create_task(proxy.run())
            group.create_task(attendants.run())
            if config.follow_service_cidrs:
                group.create_task(ServiceCidrs(session, config.service_cidrs, ranges_changed).run())
    finally:
        attendants.close()
        backend.close()


async def _settle_memory(proxy: Proxy) -> None:
    """The first lists are hundreds of thousands of objects and no garbage. Collecting while they are made doubles the
    time to the first programming; walking over them later would be a pause in the middle of a change."""
    gc.disable()
    try:
        await proxy.programmed.wait()
        gc.freeze()
        await asyncio.to_thread(heap.give_back)  # the lists' texts, larger than what is kept of them
    finally:
        gc.enable()
