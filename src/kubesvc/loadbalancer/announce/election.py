"""Which node answers for which load-balancer address on a segment. Pure: every node computes the same from the same.

There is no leader and no lock: rendezvous hashing gives each (address, node) a weight, and of the nodes that may, the
one of most weight announces. When a node comes or goes, only the addresses it gains or loses move. Two nodes whose
caches differ for a moment may both answer; the one that takes over says so more than once, and the last word wins in
the neighbours' tables.

    may announce      alive on this segment, Ready, not excluded (`nodes.is_eligible`), named by an L2Advertisement
    policy Cluster    any of these: its proxy reaches every endpoint
    policy Local      those with a ready endpoint; when no endpoint is ready anywhere, those with an endpoint that still
                      serves while it terminates; none at all: nobody answers, as there is nowhere to go
    a cordoned node   only when there is no other: whoever drains it needn't wait for more
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address

import msgspec

from kubesvc.api.balancing import Address
from kubesvc.api.core import Service
from kubesvc.api.discovery import Endpoint
from kubesvc.loadbalancer.announce.adverts import L2Rule
from kubesvc.loadbalancer.providers.pools import Pool


class Vip(msgspec.Struct, frozen=True):
    """An address to be announced. `hosts`: the nodes with an endpoint, for policy Local; None when any node will do."""

    address: Address
    hosts: frozenset[str] | None = None
    pool: str = ""


class Member(msgspec.Struct, frozen=True):
    """A node that is alive on the segment and may take traffic. `interface`: its own name for its way there."""

    name: str
    interface: str = "eth0"
    cordoned: bool = False
    labels: Mapping[str, str] = {}


def elect(address: Address, nodes: Iterable[str]) -> str | None:
    """The announcer of `address` among `nodes`; None when there are none."""
    return max(nodes, key=lambda node: (_weight(address, node), node), default=None)


def announcer(vip: Vip, members: Sequence[Member], rules: Sequence[L2Rule]) -> str | None:
    """The node that answers for `vip` on a segment with these members; None: nobody."""
    may = [
        m
        for m in members
        if (vip.hosts is None or m.name in vip.hosts) and any(r.covers(vip.pool, m.labels, m.interface) for r in rules)
    ]
    return elect(vip.address, [m.name for m in may if not m.cordoned] or [m.name for m in may])


def claims(node: str, vips: Iterable[Vip], members: Sequence[Member], rules: Sequence[L2Rule]) -> frozenset[Address]:
    """The addresses that `node` answers for. Of two Services that share one, each must be served by the node."""
    hosts: dict[Address, Vip] = {}
    for vip in vips:
        shared = hosts.get(vip.address)
        if shared is not None and shared.hosts is not None:
            both = shared.hosts if vip.hosts is None else shared.hosts | vip.hosts
            vip = Vip(vip.address, both, vip.pool)
        hosts[vip.address] = vip
    return frozenset(address for address, vip in hosts.items() if node == announcer(vip, members, rules))


def addresses(service: Service, pools: Sequence[Pool]) -> list[tuple[Address, str]]:
    """The addresses of our pools that a Service's status shows, and that packets reach nodes with; with the pool."""
    if service.spec.type != "LoadBalancer":
        return []
    found: list[tuple[Address, str]] = []
    for ingress in service.status.load_balancer.ingress:
        try:
            address = ip_address(ingress.ip)
        except ValueError:  # a hostname
            continue
        if ingress.ip_mode in (None, "VIP") and (pool := next((p for p in pools if address in p), None)):
            found.append((address, pool.name))
    return found


def is_local(service: Service) -> bool:
    return service.spec.external_traffic_policy == "Local"


def hosts(endpoints: Sequence[Endpoint]) -> frozenset[str]:
    """The nodes that can serve a policy-Local Service with these endpoints."""
    ready = frozenset(e.node_name for e in endpoints if e.ready and e.node_name)
    return ready or frozenset(e.node_name for e in endpoints if e.serving and e.terminating and e.node_name)


@lru_cache(maxsize=1 << 14)
def _weight(address: Address, node: str) -> bytes:
    return hashlib.blake2b(address.packed + node.encode(), digest_size=8).digest()
