"""Services, slices and this node -> frontends. Pure and incremental: `take` decides again only for Services that a
change touched, and gives only what differs.

                                      ┌─ cluster IPs      internalTrafficPolicy   masquerade off-cluster sources
    Service port + slices ─► Choice ──┼─ node ports       ┐
                                      ├─ external IPs     ├ external: always masqueraded
                                      └─ load balancer IPs┘

Two Services may claim one address and port (an external IP is whatever a user writes): the surer kind of claim wins,
then the name, and when the winner goes the next one takes over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import SERVICE_PROXY_NAME
from kubesvc.proxy.backend import Changes, Frontend, Kind
from kubesvc.proxy.endpoints import LOCAL, READY, Candidates, Choice, Locality, arrange, choose, parse
from kubesvc.proxy.layout import (
    MOST_ENDPOINTS,
    PROTOCOLS,
    Masquerade,
    Refusal,
    pack,
    port_data,
    split_endpoint,
    split_key,
    tail,
)

Key = tuple[str, str]  # namespace, name

_RANK = {Kind.CLUSTER_IP: 0, Kind.LOAD_BALANCER: 1, Kind.EXTERNAL_IP: 2, Kind.NODE_PORT: 3}


@dataclass(slots=True)
class _Decided:
    """What is in force for one Service."""

    frontends: dict[bytes, Frontend]
    cluster_ips: tuple[bytes, ...] = ()
    local_endpoints: frozenset[bytes] = frozenset()


_NOTHING = _Decided({})


class Frontends:
    """The decisions of one node's proxy. Feed it with `set_*`; `take` gives what changed since the last time."""

    def __init__(self, here: Locality, node_port_ips: Iterable[bytes], *, proxy_name: str = "") -> None:
        self._here = here
        self._node_port_ips = tuple(node_port_ips)
        self._proxy_name = proxy_name
        self._services: dict[Key, Service] = {}
        self._slices: dict[Key, dict[str, EndpointSlice]] = {}  # service -> slice name -> slice
        self._candidates: dict[Key, dict[str, Candidates]] = {}  # the same, as this node sees them
        self._decided: dict[Key, _Decided] = {}
        self._winners: dict[bytes, Frontend] = {}  # frontend key -> who has it
        self._losers: dict[bytes, list[Frontend]] = {}  # frontend key -> who else claims it; nearly always empty
        self._cluster_ips: Counter[bytes] = Counter()
        self._local_endpoints: Counter[bytes] = Counter()
        self._touched: dict[Key, None] = {}  # an ordered set

    # ── what is observed ──

    def set_service(self, key: Key, service: Service | None) -> None:
        """The Service as it is now; None when it is gone."""
        if service is None:
            self._services.pop(key, None)
        else:
            self._services[key] = service
        self._touched[key] = None

    def set_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """A slice as it was and is now; None where it was or is not."""
        if old is not None and (new is None or new.service_name != old.service_name):
            owner = (old.namespace, old.service_name)
            if self._slices.get(owner, {}).pop(old.name, None) is not None:
                del self._candidates[owner][old.name]
                self._touched[owner] = None
                if not self._slices[owner]:
                    del self._slices[owner], self._candidates[owner]
        if new is not None and new.service_name:
            owner = (new.namespace, new.service_name)
            self._slices.setdefault(owner, {})[new.name] = new
            self._candidates.setdefault(owner, {})[new.name] = parse(new, self._here)
            self._touched[owner] = None

    def set_zone(self, zone: str) -> None:
        """This node's zone, which zone hints are compared with."""
        if zone == self._here.zone:
            return
        self._here = Locality(self._here.node, zone)
        for owner, slices in self._slices.items():
            self._candidates[owner] = {name: parse(found, self._here) for name, found in slices.items()}
            self._touched[owner] = None

    # ── what is decided ──

    @property
    def touched(self) -> bool:
        """Whether `take` has something to look at."""
        return bool(self._touched)

    def take(self) -> Changes:
        """What changed since the last `take`."""
        changes = Changes()
        for key in self._touched:
            old = self._decided.get(key, _NOTHING)
            service = self._services.get(key)
            new = _NOTHING if service is None else self._decide(key, service, old)
            if new is _NOTHING:
                self._decided.pop(key, None)
            else:
                self._decided[key] = new
            self._claim_all(key, old, new, changes)
            if old.cluster_ips != new.cluster_ips:
                _count(self._cluster_ips, old.cluster_ips, new.cluster_ips, changes.cluster_ips)
            if old.local_endpoints != new.local_endpoints:
                _count(self._local_endpoints, old.local_endpoints, new.local_endpoints, changes.local_endpoints)
        self._touched.clear()
        return changes

    def everything(self) -> Changes:
        """All that is decided, as of the last `take`."""
        return Changes(
            dict(self._winners), dict.fromkeys(self._cluster_ips, True), dict.fromkeys(self._local_endpoints, True)
        )

    def serving(self, key: bytes) -> frozenset[bytes] | None:
        """Every endpoint that serves at a frontend's key, chosen by its policy or not; None when no Service has it."""
        winner = self._winners.get(key)
        if winner is None:
            return None
        address, protocol, _ = split_key(key)
        found: set[bytes] = set()
        for candidates in self._candidates.get(winner.service, {}).values():
            number = candidates.ports.get((winner.port_name, protocol)) if candidates.length == len(address) else None
            if number is not None:
                ending = port_data(number)
                found.update([endpoint + ending for _, endpoint in candidates.endpoints])
        return frozenset(found)

    def ready_here(self, key: Key) -> int:
        """How many of a Service's ready endpoints are on this node, by address."""
        found = self._candidates.get(key, {}).values()
        return len({a for candidates in found for flags, a in candidates.endpoints if flags & READY and flags & LOCAL})

    def _decide(self, key: Key, service: Service, old: _Decided) -> _Decided:
        if not ours(service, self._proxy_name):
            return _NOTHING
        cluster_ips = tuple(_packed(service.spec.cluster_ips or [service.spec.cluster_ip]))
        decided = _Decided({}, cluster_ips)
        addresses = [(Kind.CLUSTER_IP, a) for a in cluster_ips]
        addresses += _external(service)
        candidates = tuple(self._candidates.get(key, {}).values())
        local: set[bytes] = set()
        for port in service.spec.ports:
            protocol = PROTOCOLS.get(port.protocol)
            if protocol is None:
                continue
            for length in {len(a) for a in cluster_ips}:
                choice = choose(candidates, length, (port.name, protocol))
                at = [
                    (kind, address + tail(protocol, port.port)) for kind, address in addresses if len(address) == length
                ]
                if port.node_port:
                    ending = tail(protocol, port.node_port)
                    at += [(Kind.NODE_PORT, ip + ending) for ip in self._node_port_ips if len(ip) == length]
                for kind, place in at:
                    before = old.frontends.get(place)
                    decided.frontends[place] = _frontend(service, port.name, kind, place, choice, before)
                if choice.local:
                    local.update([split_endpoint(e)[0] for e in choice.local])
        if local:
            decided.local_endpoints = frozenset(local)
        return decided

    # ── who has a key ──

    def _claim_all(self, owner: Key, old: _Decided, new: _Decided, changes: Changes) -> None:
        for key, before in old.frontends.items():
            if key not in new.frontends:
                self._claim(key, owner, None, changes)
            elif before == new.frontends[key]:
                new.frontends[key] = before  # one object, not two equal ones
        for key, frontend in new.frontends.items():
            if old.frontends.get(key) is not frontend:
                self._claim(key, owner, frontend, changes)

    def _claim(self, key: bytes, owner: Key, frontend: Frontend | None, changes: Changes) -> None:
        winner = self._winners.get(key)
        if key in self._losers or (winner is not None and winner.service != owner):
            frontend = self._contest(key, owner, frontend)
            if frontend == winner:
                return
        if frontend is not None:
            self._winners[key] = frontend
        elif winner is not None:
            del self._winners[key]
        changes.frontends[key] = frontend

    def _contest(self, key: bytes, owner: Key, frontend: Frontend | None) -> Frontend | None:
        """Decide between several claims; returns who has the key now."""
        winner = self._winners.get(key)
        claims = [*self._losers.pop(key, []), *([] if winner is None else [winner])]
        claims = [c for c in claims if c.service != owner]
        if frontend is not None:
            claims.append(frontend)
        claims.sort(key=lambda c: (_RANK[c.kind], c.service))
        if len(claims) > 1:
            self._losers[key] = claims[1:]
        return claims[0] if claims else None


def _frontend(
    service: Service, port_name: str, kind: Kind, key: bytes, choice: Choice, before: Frontend | None
) -> Frontend:
    """One frontend as its policy has it, each endpoint in the slot it had before."""
    inside = kind is Kind.CLUSTER_IP
    wanted = choice.local if inside and service.spec.internal_traffic_policy == "Local" else choice.cluster
    if len(wanted) > MOST_ENDPOINTS:
        wanted = wanted[:MOST_ENDPOINTS]
    endpoints = wanted if before is None else arrange(before.endpoints, wanted)
    refusal = None
    if not endpoints:
        refusal = Refusal.DROP if choice.cluster else Refusal.REJECT
    masquerade = Masquerade.OFF_CLUSTER if inside else Masquerade.ALWAYS
    return Frontend(key, endpoints, masquerade, refusal, 0, kind, service.key, port_name)


def ours(service: Service, proxy_name: str) -> bool:
    """Whether this proxy answers for the Service at all."""
    spec = service.spec
    if spec.type == "ExternalName" or spec.cluster_ip in ("", "None"):
        return False
    return service.metadata.labels.get(SERVICE_PROXY_NAME, "") == proxy_name


def _external(service: Service) -> Iterator[tuple[Kind, bytes]]:
    for address in _packed(service.spec.external_ips):
        yield Kind.EXTERNAL_IP, address
    for ingress in service.status.load_balancer.ingress:
        if ingress.ip and ingress.ip_mode in (None, "VIP"):
            for address in _packed([ingress.ip]):
                yield Kind.LOAD_BALANCER, address


def _packed(addresses: Iterable[str]) -> Iterator[bytes]:
    """The addresses that are ones; the API server keeps others out, a foreign one may not."""
    for address in addresses:
        try:
            yield pack(address)
        except ValueError:
            continue


def _count(counter: Counter[bytes], old: Collection[bytes], new: Collection[bytes], changes: dict[bytes, bool]) -> None:
    """Several Services may share a member: it comes with the first and goes with the last."""
    for member in new:
        if member not in old:
            counter[member] += 1
            if counter[member] == 1:
                _toggle(changes, member, True)
    for member in old:
        if member not in new:
            counter[member] -= 1
            if counter[member] == 0:
                del counter[member]
                _toggle(changes, member, False)


def _toggle(changes: dict[bytes, bool], member: bytes, present: bool) -> None:
    """Added and removed within one `take` is no change."""
    if changes.get(member) is (not present):
        del changes[member]
    else:
        changes[member] = present
