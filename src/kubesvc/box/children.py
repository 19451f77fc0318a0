"""What each process of a box runs: the rooms, wired.

    control-plane        API server, controllers, load-balancer controller; over SQLite, in the node network
    NODE/proxy           the data plane, and the answering of ARP for load-balancer addresses
    NODE/dns  NODE/node  the DNS server; the pods
    publish              node ports on the host's localhost, where there are any to publish

All import their rooms here, at the top: the supervisor must have imported everything before it forks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import ApiError
from kubesvc.api.nodes import Node
from kubesvc.api.registry import ENDPOINT_SLICE, NODE
from kubesvc.apiserver.config import ApiConfig
from kubesvc.apiserver.server import ApiServer, relax_collection
from kubesvc.box import portrange, publish
from kubesvc.box.addons import ensure_addons
from kubesvc.box.certificates import Identities
from kubesvc.box.definition import (
    AGENT_PORT,
    API_PORT,
    DNS_PORT,
    OWN_PORTS,
    PROXY_HEALTH_PORT,
    PROXY_METRICS_PORT,
    Box,
)
from kubesvc.box.sockets import Sockets
from kubesvc.box.supervisor import Child
from kubesvc.client import kubeconfig
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, User
from kubesvc.controllers import main as controllers
from kubesvc.controllers.config import ControllersConfig
from kubesvc.dns import main as dns
from kubesvc.dns import upstreams
from kubesvc.dns.config import DnsConfig
from kubesvc.kernel import netns
from kubesvc.kernel.links import Links
from kubesvc.loadbalancer import main as loadbalancer
from kubesvc.loadbalancer.announce import main as announce
from kubesvc.loadbalancer.config import AnnounceConfig, LoadBalancerConfig
from kubesvc.node import main as node_agent
from kubesvc.node import routes
from kubesvc.node.config import CniConfig, NodeConfig
from kubesvc.node.teardown import teardown
from kubesvc.proxy import main as proxy
from kubesvc.proxy.config import ProxyConfig, node_port_networks, own_ips
from kubesvc.store.protocol import StoreError
from kubesvc.store.sqlite import SqliteStore

log = logging.getLogger(__name__)

FAILED = "failed: "  # begins a line of progress that says why the box can't start
WARNING = "warning: "  # and one that says what its owner should know
_HOST = Path("/proc/self/ns/net")  # the supervisor's namespace


@dataclass(slots=True)
class Parts:
    """What the processes of a box are made from. Nodes come and go: a process that starts is given what holds then."""

    box: Box
    identities: Identities
    sockets: Sockets
    progress: int  # a descriptor: what becomes ready is written to it, a name a line
    host: int = field(default_factory=netns.current)  # kept open: the way back to the host's network

    def children(self) -> list[Child]:
        """Every process of the box."""
        found = [
            Child(
                "control-plane",
                netns.named(self.box.namespace("net")),
                lambda: _control_plane(self.box, self.identities, self.sockets.api, self.progress),
                outlives=True,
            )
        ]
        found += [child for name in self.box.node_names for child in self.of_node(name)]
        if self.sockets.published:
            found.append(Child("publish", _HOST, lambda: publish.run(self.box, self.sockets.published)))
        return found

    def of_node(self, name: str) -> list[Child]:
        box, identities = self.box, self.identities
        namespace = netns.named(box.namespace(name))

        def socket_on_host(family: int, kind: int) -> socket.socket:
            return netns.socket_in(self.host, family, kind)

        def resolvers() -> tuple[str, ...]:
            return upstreams.find(own=[str(box.dns_ip)])

        return [
            Child(f"{name}/proxy", namespace, _proxy(box, identities, name)),
            Child(f"{name}/dns", namespace, _dns(box, identities, name, self.sockets, resolvers, socket_on_host)),
            Child(f"{name}/node", namespace, _node(box, identities, name, self.host)),
        ]


@asynccontextmanager
async def _session(path: Path) -> AsyncIterator[Session]:
    session = kubeconfig.load(path)
    try:
        yield session
    finally:
        await session.close()


async def _control_plane(box: Box, identities: Identities, listeners: tuple[socket.socket, ...], progress: int) -> None:
    try:
        store = SqliteStore(box.objects)
        server = ApiServer(store, _api_config(box, identities))
        await server.start()
        relax_collection()
        if warning := await portrange.warning(store, box.port_range):
            os.write(progress, f"{WARNING}{warning}\n".encode())
    except (StoreError, ApiError) as error:
        os.write(progress, f"{FAILED}{error}\n".encode())
        raise

    def session_of(name: str, *groups: str) -> Session:
        return Session(LocalTransport(server.handler, User(name, groups)))

    session = session_of("system:kubesvc:control-plane", "system:masters")  # for what the box itself sees to
    controlling, balancing = session_of("system:kubesvc:controllers"), session_of("system:kubesvc:load-balancer")
    pools = tuple(network.pool for network in box.networks)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(listeners))
            os.write(progress, b"API server\n")
            await ensure_addons(session, box)
            group.create_task(controllers.run(controlling, _controllers_config(box, identities)))
            group.create_task(loadbalancer.run(balancing, LoadBalancerConfig(pools=pools, alone=True)))
            group.create_task(_routes_to_pods(session))
            group.create_task(_report_ready(session, box, progress))
    finally:
        await server.close()
        await store.close()


async def _routes_to_pods(session: Session) -> None:
    """The way back to pods that ask the API server: it is on the nodes' network, and no node itself."""
    nodes = Informer(session, NODE, Node)
    with Links() as links:
        async with asyncio.TaskGroup() as group:
            group.create_task(nodes.run())
            group.create_task(routes.follow(nodes, links, ""))


def _controllers_config(box: Box, identities: Identities) -> ControllersConfig:
    return ControllersConfig(
        pod_cidrs=box.pods,
        ca_pem=identities.ca_pem,
        node_grace=box.node_grace,
        gone_node_grace=box.node_grace,
        volumes=str(box.path / "volumes"),
    )


def _api_config(box: Box, identities: Identities) -> ApiConfig:
    return ApiConfig(
        service_cidrs=box.services,
        node_port_range=box.port_range,
        own_ports=OWN_PORTS,
        dns_domain=box.dns_domain,
        allow_external_ips=box.allow_external_ips,
        advertise_address=str(box.network.api),
        advertise_port=API_PORT,
        tls_cert=identities.serving,
        tls_key=identities.serving.with_suffix(".key"),
        client_ca=identities.authority,
        signing_key=identities.signing,
        node_client_cert=identities.node_client,
        node_client_key=identities.node_client.with_suffix(".key"),
    )


def _proxy(box: Box, identities: Identities, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
    async def run() -> None:
        primary = box.node_ips(name)
        address = primary[0]
        words = box.node_port_addresses.split(",")
        pools = tuple(network.pool for network in box.networks)
        with Links() as links:
            ips = own_ips(primary, links.addresses())
        config = ProxyConfig(
            node_name=name,
            node_ips=ips,
            service_cidrs=box.services,
            pod_cidrs=box.pods,
            pods_by_node=True,
            node_port_addresses=node_port_networks(words, primary),
            localhost_node_ports=True,
            healthz_address=(str(address), PROXY_HEALTH_PORT),
            metrics_address=(str(address), PROXY_METRICS_PORT),
            load_balancer_ranges=pools,
        )
        announcer = AnnounceConfig(node_name=name, pools=pools, runtime=box.run_path / "bgp")
        async with _session(identities.nodes[name].proxy) as session, asyncio.TaskGroup() as group:
            group.create_task(proxy.run(session, config))
            group.create_task(announce.run(session, announcer))

    return run


def _dns(
    box: Box,
    identities: Identities,
    name: str,
    sockets: Sockets,
    resolvers: Callable[[], tuple[str, ...]],
    socket_on_host: Callable[[int, int], socket.socket],
) -> Callable[[], Coroutine[Any, Any, None]]:
    async def run() -> None:
        udp, tcp, health = sockets.dns[name]
        config = DnsConfig(
            node_name=name,
            node_ip=str(box.node_ip(name)),
            port=DNS_PORT,
            udp_sockets=(udp,),
            tcp_sockets=(tcp,),
            health_socket=health,
            upstreams=() if box.forward else resolvers(),
            find_upstreams=resolvers,
            host_searches=upstreams.find_searches(),
            socket_factory=socket_on_host,
            cluster_cidrs=tuple(map(str, (*box.services, *box.pods))),
        )
        async with _session(identities.nodes[name].dns) as session:
            await dns.run(session, box.dns.apply(config))

    return run


def _node_config(box: Box, name: str, host: int | None = None) -> NodeConfig:
    pki = box.path / "pki"
    added = box.added_node(name)
    return NodeConfig(
        box=box.name,
        node_name=name,
        node_ips=box.node_ips(name),
        run_dir=box.run_path / name,
        cluster_dns=(box.dns_ip,),
        dns_domain=box.dns_domain,
        certificate=pki / f"{name}-serving.crt",
        key=pki / f"{name}-serving.key",
        client_ca=pki / "ca.crt",
        port=AGENT_PORT,
        zone=added.zone if added else "",
        labels=added.labels if added else {},
        lease_renewal=box.node_grace / 4,
        images=box.images,
        image_network=host,
        docker_config=docker_config(),
        cni=cni_config(box, name) if box.cni else None,
    )


def _node(box: Box, identities: Identities, name: str, host: int) -> Callable[[], Coroutine[Any, Any, None]]:
    async def run() -> None:
        with Links() as links:
            config = replace(_node_config(box, name, host), mtu=links.mtu("eth0"))
        async with _session(identities.nodes[name].node) as session:
            await node_agent.run(session, config)

    return run


def cni_config(box: Box, node: str) -> CniConfig:
    """A node's CNI network, if the box has one."""
    places = tuple(map(Path, box.cni_bin.split(os.pathsep)))
    return CniConfig(Path(box.cni), places, box.path / "cni" / node)


def docker_config() -> Path:
    """Docker's configuration of who started the box, where `docker login` leaves what it is told."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def teardown_nodes(box: Box) -> None:
    """End every pod of the box, from what is on disk alone: no API is needed."""
    for path in box.run_path.glob("*/pods"):
        teardown_node(box, path.parent.name)


def teardown_node(box: Box, name: str) -> None:
    """End every pod of one node, which may be no part of the box any more."""
    known = name in box.node_names
    config = _node_config(box, name if known else box.node_names[0])
    if not known:
        cni = cni_config(box, name) if box.cni else None
        config = replace(config, node_name=name, run_dir=box.run_path / name, cni=cni)
    teardown(config, netns.named(box.namespace(name)))


async def _report_ready(session: Session, box: Box, progress: int) -> None:
    """Write `NODE ready` once the node is Ready, and `NODE DNS` once its DNS server answers; then end."""
    waiting = {f"{name} {part}" for name in box.node_names for part in ("ready", "DNS")}
    done = asyncio.Event()
    nodes = Informer(session, NODE, Node)
    slices = Informer(session, ENDPOINT_SLICE, EndpointSlice, namespace="kube-system")

    def say(what: str) -> None:
        if what in waiting:
            waiting.discard(what)
            os.write(progress, f"{what}\n".encode())
            if not waiting:
                done.set()

    def on_node(old: Node | None, new: Node | None) -> None:
        if new is not None and new.ready:
            say(f"{new.name} ready")

    def on_slice(old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if new is not None and new.service_name == "kube-dns":
            for endpoint in new.endpoints:
                if endpoint.ready:
                    say(f"{endpoint.node_name} DNS")

    nodes.on_change(on_node)
    slices.on_change(on_slice)
    informers = [asyncio.ensure_future(nodes.run()), asyncio.ensure_future(slices.run())]
    try:
        await done.wait()
    finally:
        for task in informers:
            task.cancel()
