"""One Service and the endpoints it may choose from -> its frontends, each with its traffic policy. Pure.

                                  ┌─ cluster IPs          internalTrafficPolicy
    port + candidates ─► Choice ──┼─ node ports         ┐
                                  ├─ external IPs       ├ externalTrafficPolicy
                                  └─ load balancer IPs  ┘ and, these alone, loadBalancerSourceRanges

    policy               a pod of this node     this node               from outside, other nodes' pods
    internal Cluster     cluster set            cluster set, masq.      cluster set, masq.
    internal Local       local set              local set, masq.        local set, masq.
    external Cluster     cluster set, masq.     cluster set, masq.      cluster set, masq.
    external Local       cluster set            cluster set, masq.      local set

No endpoint anywhere: rejected. Endpoints, but none in the local set where that one counts: dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import msgspec

from kubesvc.api.balance import Balance, Invalid, Key, balance_of, key_of
from kubesvc.api.core import Service
from kubesvc.api.labels import SERVICE_PROXY_NAME
from kubesvc.proxy.backend import Frontend, Kind
from kubesvc.proxy.balance import fill
from kubesvc.proxy.endpoints import Candidates, Choice, choose
from kubesvc.proxy.layout import PROTOCOLS, SLOT_TABLE, TCP, Draw, Masquerade, Refusal, pack, split_endpoint, tail
from kubesvc.proxy.sources import allowed

_LOOPBACK6 = pack("::1")
_DEFAULT_TIMEOUT = 10800  # seconds; what the API server fills in


class Decided(msgspec.Struct):
    """What is in force for one Service."""

    frontends: dict[bytes, Frontend]
    service_ips: tuple[bytes, ...] = ()
    local_endpoints: frozenset[bytes] = frozenset()


NOTHING = Decided({})


class Site(msgspec.Struct, frozen=True):
    """What the decisions need to know of this node and its cluster. Addresses are packed."""

    node_port_ips: tuple[bytes, ...]
    node_ips: tuple[bytes, ...]
    load_balancer_ranges: tuple[tuple[bytes, bytes], ...] = ()
    """First and last address of ranges that hold nobody's addresses but Services'."""
    proxy_name: str = ""
    forwarder: bytes = b""
    """The endpoint that takes connections to node ports of ::1, which can't leave the node; empty: there is none."""
    masquerade_all: bool = False
    """Whether everybody loses their source address on the way through a cluster IP."""
    slot_table: int = SLOT_TABLE
    """Slots of a Service with maglev, a prime; the same on every node."""


class Manner(msgspec.Struct, frozen=True):
    """How a Service's connections are spread. `weights` maps addresses that don't weigh 1."""

    affinity: int  # seconds, 0: none
    balance: Balance | None = None
    draw: Draw = Draw.RANDOM
    weights: Mapping[bytes, int] = {}
    slot_table: int = SLOT_TABLE

    def slots(self, wanted: tuple[bytes, ...], before: tuple[bytes, ...] | None) -> tuple[bytes, ...]:
        """`wanted` in slots, as far as can be in those that they had."""
        return fill(self.balance, wanted, self.weights, before or (), self.slot_table)


def decide(service: Service, candidates: Sequence[Candidates], site: Site, old: Decided) -> Decided:
    """Every frontend of the Service, endpoints in the slots they had in `old`; NOTHING when it is not ours."""
    if not ours(service, site.proxy_name):
        return NOTHING
    cluster_ips = tuple(_packed(service.spec.cluster_ips or [service.spec.cluster_ip]))
    external = tuple(_external(service))
    addresses = [(Kind.CLUSTER_IP, a) for a in cluster_ips]
    addresses += external
    decided = Decided({}, cluster_ips)
    if external and site.load_balancer_ranges:
        decided.service_ips = tuple(dict.fromkeys((*cluster_ips, *_only_services(external, site))))
    manner = _manner(service, candidates, site)
    local: set[bytes] = set()
    for port in service.spec.ports:
        protocol = PROTOCOLS.get(port.protocol)
        if protocol is None:
            continue
        answers = False
        for length in {len(a) for a in cluster_ips}:
            choice = choose(candidates, length, (port.name, protocol))
            at = [(kind, a + tail(protocol, port.port)) for kind, a in addresses if len(a) == length]
            if port.node_port:
                ending = tail(protocol, port.node_port)
                at += [(Kind.NODE_PORT, ip + ending) for ip in site.node_port_ips if len(ip) == length]
            for kind, place in at:
                before = old.frontends.get(place)
                if kind is Kind.CLUSTER_IP:
                    found = _inside(service, port.name, place, choice, manner, before, site)
                else:
                    found = _from_outside(service, port.name, kind, place, choice, manner, before, site)
                decided.frontends[place] = found
            answers = answers or bool(choice.cluster and any(kind is Kind.NODE_PORT for kind, _ in at))
            if choice.local:
                local.update([split_endpoint(e)[0] for e in choice.local])
        if port.node_port and protocol == TCP and site.forwarder:
            found = _by_forwarder(service, port.name, port.node_port, site.forwarder if answers else b"")
            decided.frontends[found.key] = found
    if local:
        decided.local_endpoints = frozenset(local)
    return decided


def ours(service: Service, proxy_name: str) -> bool:
    """Whether this proxy answers for the Service at all."""
    spec = service.spec
    if spec.type == "ExternalName" or spec.cluster_ip in ("", "None"):
        return False
    return service.metadata.labels.get(SERVICE_PROXY_NAME) == (proxy_name or None)


def _inside(
    service: Service, port_name: str, key: bytes, choice: Choice, manner: Manner, before: Frontend | None, site: Site
) -> Frontend:
    """A cluster IP's frontend."""
    wanted = choice.local if service.spec.internal_traffic_policy == "Local" else choice.cluster
    endpoints = manner.slots(wanted, None if before is None else before.endpoints)
    refusal = None
    if not endpoints:
        refusal = Refusal.DROP if choice.cluster else Refusal.REJECT
    masquerade = Masquerade.ALWAYS if site.masquerade_all else Masquerade.OFF_CLUSTER
    return Frontend(
        key,
        endpoints,
        masquerade,
        refusal,
        manner.affinity,
        Kind.CLUSTER_IP,
        service.key,
        port_name,
        draw=manner.draw,
    )


def _from_outside(
    service: Service,
    port_name: str,
    kind: Kind,
    key: bytes,
    choice: Choice,
    manner: Manner,
    before: Frontend | None,
    site: Site,
) -> Frontend:
    """The frontend of a node port, an external IP or a load balancer's address."""
    endpoints = manner.slots(choice.cluster, None if before is None else before.endpoints)
    masquerade, outside = Masquerade.ALWAYS, None
    if service.spec.external_traffic_policy == "Local":
        masquerade = Masquerade.OFF_CLUSTER
        if endpoints:
            outside = manner.slots(choice.local, None if before is None else before.outside)
    sources = None
    if kind is Kind.LOAD_BALANCER and service.spec.load_balancer_source_ranges:
        sources = allowed(service.spec.load_balancer_source_ranges, key[:-8], site.node_ips)
    refusal = None if endpoints else Refusal.REJECT
    return Frontend(
        key,
        endpoints,
        masquerade,
        refusal,
        manner.affinity,
        kind,
        service.key,
        port_name,
        outside,
        sources,
        manner.draw,
    )


def _manner(service: Service, candidates: Iterable[Candidates], site: Site) -> Manner:
    """What can't be understood is as if it weren't there: the controllers say so in an Event."""
    affinity = _affinity(service)
    try:
        balance = balance_of(service)
    except Invalid:
        balance = None
    if balance is None:
        return _plain(affinity)
    weights: dict[bytes, int] = {}
    for found in candidates:
        for address, weight in found.weights.items():  # an address may be in two slices
            weights[address] = max(weight, weights.get(address, 0))
    draw = Draw.RANDOM
    if balance is Balance.MAGLEV:
        draw = Draw.CLIENT if affinity or _by_client(service) else Draw.CONNECTION
    return Manner(affinity, balance, draw, weights, site.slot_table)


@cache
def _plain(affinity: int) -> Manner:
    return Manner(affinity)


def _by_client(service: Service) -> bool:
    try:
        return key_of(service) is Key.CLIENT
    except Invalid:
        return False


def _by_forwarder(service: Service, port_name: str, node_port: int, forwarder: bytes) -> Frontend:
    """The frontend of ::1; it refuses while nothing answers at the addresses that the forwarder connects to."""
    key = _LOOPBACK6 + tail(TCP, node_port)
    to, refusal = ((forwarder,), None) if forwarder else ((), Refusal.REJECT)
    return Frontend(key, to, Masquerade.NEVER, refusal, 0, Kind.NODE_PORT, service.key, port_name)


def _affinity(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    seconds = None if config is None or config.client_ip is None else config.client_ip.timeout_seconds
    return seconds or _DEFAULT_TIMEOUT


def _external(service: Service) -> Iterator[tuple[Kind, bytes]]:
    for address in _packed(service.spec.external_ips):
        yield Kind.EXTERNAL_IP, address
    for ingress in service.status.load_balancer.ingress:
        if ingress.ip and ingress.ip_mode in (None, "VIP"):
            for address in _packed([ingress.ip]):
                yield Kind.LOAD_BALANCER, address


def _only_services(external: Iterable[tuple[Kind, bytes]], site: Site) -> Iterator[bytes]:
    """Load balancer addresses that are no host's for sure: an ingress may as well name a node."""
    for kind, address in external:
        if kind is Kind.LOAD_BALANCER:
            for first, last in site.load_balancer_ranges:
                if len(first) == len(address) and first <= address <= last:
                    yield address


def _packed(addresses: Iterable[str]) -> Iterator[bytes]:
    """The addresses that are ones; the API server keeps others out, a foreign one may not."""
    for address in addresses:
        try:
            yield pack(address)
        except ValueError:
            continue
