"""Services, slices and this node -> frontends. Pure and incremental: `take` decides again only for Services that a
change touched, and gives only what differs.

    set_service ─┐
    set_slice ───┼─► touched Services ─► policy.decide ─► claims: who has an address and port ─► Changes
    set_zone ────┘
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from msgspec.structs import replace

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.proxy.backend import Changes, Frontend
from kubesvc.proxy.claims import Claims
from kubesvc.proxy.endpoints import LOCAL, READY, Candidates, Locality, parse
from kubesvc.proxy.layout import SLOT_TABLE, port_data, split_key
from kubesvc.proxy.policy import NOTHING, Decided, Site, decide

Key = tuple[str, str]  # namespace, name


class Frontends:
    """The decisions of one node's proxy. Feed it with `set_*`; `take` gives what changed since the last time."""

    def __init__(
        self,
        here: Locality,
        node_port_ips: Iterable[bytes],
        *,
        proxy_name: str = "",
        node_ips: Iterable[bytes] = (),
        load_balancer_ranges: Iterable[tuple[bytes, bytes]] = (),
        forwarder: bytes = b"",
        masquerade_all: bool = False,
        slot_table: int = SLOT_TABLE,
    ) -> None:
        """`load_balancer_ranges`, first and last address, hold addresses that only Services have. `slot_table` is how
        many slots a Service with maglev has."""
        ports = tuple(node_port_ips)
        self._here = here
        nodes = tuple(node_ips) or ports
        ranges = tuple(load_balancer_ranges)
        self._site = Site(ports, nodes, ranges, proxy_name, forwarder, masquerade_all, slot_table)
        self._services: dict[Key, Service] = {}
        self._slices: dict[Key, dict[str, EndpointSlice]] = {}  # service -> slice name -> slice
        self._candidates: dict[Key, dict[str, Candidates]] = {}  # the same, as this node sees them
        self._decided: dict[Key, Decided] = {}
        self._claims = Claims()
        self._service_ips: Counter[bytes] = Counter()
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

    def set_addresses(self, node_port_ips: Iterable[bytes], node_ips: Iterable[bytes]) -> None:
        """Where node ports answer, and which addresses this node has."""
        site = replace(self._site, node_port_ips=tuple(node_port_ips), node_ips=tuple(node_ips))
        if site != self._site:
            self._site = site
            self._touched.update(dict.fromkeys(self._services))

    # ── what is decided ──

    @property
    def touched(self) -> bool:
        """Whether `take` has something to look at."""
        return bool(self._touched)

    def take(self) -> Changes:
        """What changed since the last `take`."""
        changes = Changes()
        for key in self._touched:
            old = self._decided.get(key, NOTHING)
            service = self._services.get(key)
            candidates = tuple(self._candidates.get(key, {}).values())
            new = NOTHING if service is None else decide(service, candidates, self._site, old)
            if new is NOTHING:
                self._decided.pop(key, None)
            else:
                self._decided[key] = new
            self._claims.replace(key, old.frontends, new.frontends, changes.frontends)
            if old.service_ips != new.service_ips:
                _count(self._service_ips, old.service_ips, new.service_ips, changes.service_ips)
            if old.local_endpoints != new.local_endpoints:
                _count(self._local_endpoints, old.local_endpoints, new.local_endpoints, changes.local_endpoints)
        self._touched.clear()
        return changes

    def everything(self) -> Changes:
        """All that is decided, as of the last `take`."""
        return Changes(
            dict(self._claims.winners),
            dict.fromkeys(self._service_ips, True),
            dict.fromkeys(self._local_endpoints, True),
        )

    @property
    def node_port_ips(self) -> tuple[bytes, ...]:
        """The addresses that node ports are translated on."""
        return self._site.node_port_ips

    def find(self, key: bytes) -> Frontend | None:
        """The frontend with this key, as of the last `take`."""
        return self._claims.winners.get(key)

    def serving(self, key: bytes) -> frozenset[bytes] | None:
        """Every endpoint that serves at a frontend's key, chosen by its policy or not; None when no Service has it."""
        winner = self._claims.winners.get(key)
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
