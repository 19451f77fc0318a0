"""The proxy alone, in any Kubernetes cluster, where kube-proxy would be: `kubesvc proxy`.

What a box tells its proxies is asked of the API here: the node's addresses and pod network of its Node, the Service
ranges of the ServiceCIDR objects. Lives in the network namespace it is started in.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import msgspec

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.networking import ServiceCIDR
from kubesvc.api.nodes import Node
from kubesvc.api.registry import NODE, SERVICE_CIDR
from kubesvc.client import kubeconfig
from kubesvc.client.session import Session, Unreachable
from kubesvc.kernel.links import PROTO_KUBESVC, Links
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.transaction import DeleteTable, Transaction
from kubesvc.proxy import localhost, main
from kubesvc.proxy.config import ProxyConfig, node_port_networks, own_ips
from kubesvc.proxy.layout import TABLE

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PATIENCE = 1.0  # seconds between two questions for the Node


class StandaloneError(Exception):
    """The proxy can't start; the message says what to give it."""


class Options(msgspec.Struct, frozen=True):
    """What the command line says. Empty networks: ask the API."""

    kubeconfig: Path
    node_name: str
    cluster_cidrs: tuple[Network, ...] = ()
    service_cidrs: tuple[Network, ...] = ()
    node_port_addresses: tuple[str, ...] = ()
    """CIDRs, or words that `config.node_port_networks` knows."""
    localhost_node_ports: bool = False
    detect_local_mode: str = ""
    """ClusterCIDR or NodeCIDR: which sources are pods; empty: by the networks that are known."""
    healthz_address: tuple[str, int] | None = ("0.0.0.0", 10256)
    metrics_address: tuple[str, int] | None = ("127.0.0.1", 10249)
    masquerade_all: bool = False
    sysctls: tuple[tuple[str, int], ...] = ()
    report_programmed: bool = False
    """A kubelet waits for no such report; the agents of kubesvc do."""


def serve(options: Options) -> None:
    """Be the node's proxy until SIGTERM or SIGINT. Raises StandaloneError, KubeconfigError, OSError."""

    async def until_told() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        session = kubeconfig.load(options.kubeconfig)
        try:
            await run(session, options)
        except asyncio.CancelledError:
            log.info("the data plane stays in force; `kubesvc proxy --cleanup` takes it away")
        finally:
            await session.close()

    asyncio.run(until_told())


def cleanup() -> bool:
    """Take our table and our routes to Services away; False when there was no table. Raises NftError, OSError."""
    connection = Connection()
    try:
        found = connection.comment(TABLE) is not None
        if found:
            localhost.close_way(connection)
            transaction = Transaction()
            transaction.add(DeleteTable(TABLE))
            connection.commit(transaction)
    finally:
        connection.close()
    with Links() as links:
        for version in (4, 6):
            for route in links.routes(version):
                if route.proto == PROTO_KUBESVC and route.via is None and route.to.num_addresses > 1:  # no pod's
                    links.delete_route(route.to, dev=route.dev)
    return found


async def run(session: Session, options: Options) -> None:
    """Until cancelled."""
    node = await _node(session, options.node_name)
    known = options.service_cidrs or await _service_cidrs(session)
    with Links() as links:
        config = configure(options, node, known, links.addresses())
    log.info("node %s: Services in %s, pods in %s", config.node_name, _show(known), _show(config.pod_cidrs))
    await main.run(session, config)


def configure(
    options: Options, node: Node, service_cidrs: tuple[Network, ...], local: Iterable[Address]
) -> ProxyConfig:
    """What the proxy is told. `local`: the addresses of this namespace's links. Raises StandaloneError."""
    primary = [ip_address(text) for text in node.internal_ips]
    if not primary:
        raise StandaloneError(f"Node {node.name} has no InternalIP in its status: is its kubelet running?")
    own_pods = _networks([*node.spec.pod_cidrs, node.spec.pod_cidr])
    pod_cidrs = options.cluster_cidrs or own_pods
    if not pod_cidrs:
        raise StandaloneError(f"Node {node.name} has no podCIDR: give the pods' network with --cluster-cidr")
    if options.detect_local_mode == "NodeCIDR" and not own_pods:
        raise StandaloneError(
            f"Node {node.name} has no podCIDR: only --detect-local-mode ClusterCIDR can tell its pods"
        )
    return ProxyConfig(
        node_name=node.name,
        node_ips=own_ips(primary, local),
        service_cidrs=service_cidrs,
        pod_cidrs=pod_cidrs,
        pods_by_node=options.detect_local_mode == "NodeCIDR" or not options.cluster_cidrs,
        node_port_addresses=node_port_networks(options.node_port_addresses, primary),
        localhost_node_ports=options.localhost_node_ports or "localhost" in options.node_port_addresses,
        healthz_address=options.healthz_address,
        metrics_address=options.metrics_address,
        follow_service_cidrs=not options.service_cidrs,
        masquerade_all=options.masquerade_all,
        sysctls=options.sysctls,
        report_programmed=options.report_programmed,
    )


async def _node(session: Session, name: str) -> Node:
    """The Node; waited for, since a proxy may start before its kubelet has registered it."""
    said = False
    while True:
        try:
            return await session.read(NODE, Node, "", name)
        except NotFound:
            problem = f"there is no Node {name!r} (--hostname-override names it)"
        except (ApiError, Unreachable) as error:
            problem = f"the API server doesn't give Node {name!r}: {error}"
        if not said:
            log.warning("%s; trying again", problem)
            said = True
        await asyncio.sleep(_PATIENCE)


async def _service_cidrs(session: Session) -> tuple[Network, ...]:
    try:
        found = await session.list(SERVICE_CIDR, ServiceCIDR)
    except NotFound as error:
        raise StandaloneError(
            "this cluster has no ServiceCIDR objects (Kubernetes before 1.33): give --service-cluster-ip-range"
        ) from error
    return _networks(text for item in found.items for text in item.spec.cidrs)


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(dict.fromkeys(ip_network(text) for text in texts if text))


def _show(networks: Iterable[Network]) -> str:
    return ", ".join(map(str, networks)) or "none"
