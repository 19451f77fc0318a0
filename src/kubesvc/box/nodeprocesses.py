"""The processes of a box's node: its proxy, which answers ARP too, its DNS server, and the agent of its pods."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kubesvc.box.certificates import Identities
from kubesvc.box.definition import AGENT_PORT, DNS_PORT, PROXY_HEALTH_PORT, PROXY_METRICS_PORT, Box
from kubesvc.box.sockets import Sockets
from kubesvc.client import kubeconfig
from kubesvc.client.session import Session
from kubesvc.dns import main as dns_server
from kubesvc.dns import upstreams
from kubesvc.dns.config import DnsConfig
from kubesvc.kernel import netns
from kubesvc.kernel.links import Links
from kubesvc.loadbalancer.announce import main as announce
from kubesvc.loadbalancer.config import AnnounceConfig
from kubesvc.node import main as node_agent
from kubesvc.node.config import CniConfig, NodeConfig
from kubesvc.node.teardown import teardown
from kubesvc.proxy import main as data_plane
from kubesvc.proxy.config import ProxyConfig, node_port_networks, own_ips

Run = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def _session(path: Path) -> AsyncIterator[Session]:
    session = kubeconfig.load(path)
    try:
        yield session
    finally:
        await session.close()


def proxy(box: Box, identities: Identities, name: str) -> Run:
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
        pools = () if box.cloud else pools
        announcer = AnnounceConfig(node_name=name, pools=pools, runtime=box.run_path / "bgp")
        async with _session(identities.nodes[name].proxy) as session, asyncio.TaskGroup() as group:
            group.create_task(data_plane.run(session, config))
            group.create_task(announce.run(session, announcer))

    return run


def dns(box: Box, identities: Identities, name: str, sockets: Sockets, host: int) -> Run:
    """`host`: a descriptor of the host's namespace, where other servers are asked."""

    def socket_on_host(family: int, kind: int) -> socket.socket:
        return netns.socket_in(host, family, kind)

    def resolvers() -> tuple[str, ...]:
        return upstreams.find(own=[str(box.dns_ip)])

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
            await dns_server.run(session, box.dns.apply(config))

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
        identity=pki / f"{name}-node.pem",
        port=AGENT_PORT,
        zone=added.zone if added else "",
        labels=added.labels if added else {},
        lease_renewal=box.node_grace / 4,
        images=box.images,
        image_network=host,
        docker_config=docker_config(),
        seccomp=box.path / "seccomp",
        cni=cni_config(box, name) if box.cni else None,
    )


def agent(box: Box, identities: Identities, name: str, host: int) -> Run:
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
