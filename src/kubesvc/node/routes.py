"""Routes to the other nodes' pods: `podCIDR via nodeIP`. No tunnel, no NAT: the nodes share a network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from kubesvc.api.nodes import Node
from kubesvc.client.informer import Informer
from kubesvc.kernel.links import PROTO_KUBESVC, Links
from kubesvc.kernel.rtnetlink import Address, Network

log = logging.getLogger(__name__)

Wanted = dict[Network, Address]  # pod CIDR -> node address


def plan(nodes: Iterable[Node], own_name: str) -> Wanted:
    """The routes this node should have. A pod CIDR of a family that the node has no address of is left out."""
    wanted: Wanted = {}
    for node in nodes:
        if node.name == own_name:
            continue
        gateways = {a.version: a for a in map(ip_address, reversed(node.internal_ips))}
        for text in node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else []):
            network = ip_network(text)
            if network.version in gateways:
                wanted[network] = gateways[network.version]
    return wanted


def difference(present: Wanted, wanted: Wanted) -> tuple[Wanted, list[Network]]:
    """What to set, and which to delete. Routes to single pods aren't in `present`: they are podnet's."""
    setting = {network: via for network, via in wanted.items() if present.get(network) != via}
    return setting, [network for network in present if network not in wanted]


def present(links: Links) -> Wanted:
    """Our routes that lead over another node."""
    return {
        route.to: route.via
        for version in (4, 6)
        for route in links.routes(version)
        if route.proto == PROTO_KUBESVC and route.via is not None
    }


def apply(links: Links, wanted: Wanted) -> None:
    setting, deleting = difference(present(links), wanted)
    for network in deleting:
        links.delete_route(network)
    for network, via in setting.items():
        links.set_route(network, via=via, proto=PROTO_KUBESVC)
        log.info("pods of %s are reached via %s", network, via)


async def follow(informer: Informer[Node], links: Links, own_name: str) -> None:
    """Keep the routes as the nodes say, until cancelled."""
    changed = asyncio.Event()
    informer.on_change(lambda _old, _new: changed.set())
    await informer.synced.wait()
    changed.set()
    while True:
        await changed.wait()
        changed.clear()
        try:
            apply(links, plan(informer.items.values(), own_name))
        except OSError as error:
            log.warning("routes to other nodes: %s; trying again", error)
            asyncio.get_running_loop().call_later(1.0, changed.set)
