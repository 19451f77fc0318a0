"""Which node answers for which load-balancer address. Pure: every node computes the same answer from the same objects.

There is no leader and no lock: rendezvous hashing gives each (address, node) a weight, and the eligible node of the
most weight announces. When a node comes or goes, only the addresses it gains or loses move. Two nodes whose caches
differ for a moment may both answer; the one that takes over says so more than once, and the last word wins in the
neighbours' tables.

    eligible          Ready, not excluded (`nodes.is_eligible`)
    policy Cluster    any eligible node: its proxy reaches every endpoint
    policy Local      an eligible node with a ready endpoint; when no endpoint is ready anywhere, one with an endpoint
                      that still serves while it terminates; none at all: nobody answers, as there is nowhere to go
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from kubesvc.api.core import Service
from kubesvc.api.discovery import Endpoint
from kubesvc.loadbalancer.config import Range


@dataclass(frozen=True, slots=True)
class Vip:
    """An address to be announced. `hosts`: the nodes with an endpoint, for policy Local; None when any node will do."""

    address: IPv4Address
    hosts: frozenset[str] | None = None


def elect(address: IPv4Address, nodes: Iterable[str]) -> str | None:
    """The announcer of `address` among `nodes`; None when there are none."""
    return max(nodes, key=lambda node: (_weight(address, node), node), default=None)


def claims(node: str, vips: Iterable[Vip], eligible: Collection[str]) -> frozenset[IPv4Address]:
    """The addresses that `node` answers for."""
    return frozenset(
        vip.address
        for vip in vips
        if node == elect(vip.address, eligible if vip.hosts is None else [n for n in eligible if n in vip.hosts])
    )


def addresses(service: Service, pools: Sequence[Range]) -> list[IPv4Address]:
    """The addresses of our pools that a Service's status shows, and that packets reach nodes with."""
    if service.spec.type != "LoadBalancer":
        return []
    found: list[IPv4Address] = []
    for ingress in service.status.load_balancer.ingress:
        try:
            address = IPv4Address(ingress.ip)
        except AddressValueError:  # IPv6, or a hostname
            continue
        if ingress.ip_mode in (None, "VIP") and any(first <= address <= last for first, last in pools):
            found.append(address)
    return found


def is_local(service: Service) -> bool:
    return service.spec.external_traffic_policy == "Local"


def hosts(endpoints: Sequence[Endpoint]) -> frozenset[str]:
    """The nodes that can serve a policy-Local Service with these endpoints."""
    ready = frozenset(e.node_name for e in endpoints if e.ready and e.node_name)
    return ready or frozenset(e.node_name for e in endpoints if e.serving and e.terminating and e.node_name)


def _weight(address: IPv4Address, node: str) -> bytes:
    return hashlib.blake2b(address.packed + node.encode(), digest_size=8).digest()
