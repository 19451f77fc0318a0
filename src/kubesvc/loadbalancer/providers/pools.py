"""Pools of addresses, from IPAddressPool objects. Pure.

Follows MetalLB's rules: a Service may have an address of a pool when its namespace and its labels are among those the
pool names; pools that name some are tried first, by priority, then the others. Two pools never share an address: the
younger of two that do is set aside, with the reason in its status, and nobody loses an address for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from itertools import pairwise

import msgspec

from kubesvc.api.balancing import Address, IPAddressPool, Range, ServiceAllocation, parse_range
from kubesvc.api.core import Service
from kubesvc.api.selectors import Selector, from_label_selector, matches
from kubesvc.loadbalancer.provider import BadPool

DEFAULT = "default"
"""The name of the pool that is configured, rather than an object."""


class Pool(msgspec.Struct, frozen=True):
    """`ranges` in order, none overlapping. Empty selections: every Service."""

    name: str
    ranges: tuple[Range, ...]
    auto_assign: bool = True
    avoid_buggy: bool = False
    priority: int = 0
    namespaces: frozenset[str] = frozenset()
    namespace_selectors: tuple[Selector, ...] = ()
    service_selectors: tuple[Selector, ...] = ()

    def __contains__(self, address: Address) -> bool:
        found = any(
            first.version == address.version and int(first) <= int(address) <= int(last) for first, last in self.ranges
        )
        return found and not (self.avoid_buggy and is_buggy(address))

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{first}-{last}' for first, last in self.ranges) or 'empty'})"

    @property
    def selects(self) -> bool:
        return bool(self.namespaces or self.namespace_selectors or self.service_selectors)

    @property
    def rank(self) -> tuple[bool, int, str]:
        """Sorts pools in the order they are tried in."""
        return (not self.selects, self.priority or 1 << 31, self.name)

    def size(self, version: int) -> int:
        """How many addresses of a family it has to give."""
        spans = [(int(first), int(last)) for first, last in self.ranges if first.version == version]
        buggy = sum(map(_buggy, spans)) if self.avoid_buggy and version == 4 else 0
        return sum(last - first + 1 for first, last in spans) - buggy

    def admits(self, service: Service, namespace_labels: Mapping[str, str]) -> bool:
        """Whether the Service may have an address of this pool."""
        if (self.namespaces or self.namespace_selectors) and not (
            service.namespace in self.namespaces or any(matches(s, namespace_labels) for s in self.namespace_selectors)
        ):
            return False
        return not self.service_selectors or any(matches(s, service.metadata.labels) for s in self.service_selectors)


def is_buggy(address: Address) -> bool:
    """x.x.x.0 and x.x.x.255, which some old devices take for a network and a broadcast address."""
    return isinstance(address, IPv4Address) and address.packed[3] in (0, 255)


def _buggy(span: tuple[int, int]) -> int:
    """How many of a range's addresses end in .0 or .255."""
    first, last = span
    return sum((last - end) // 256 - (first - 1 - end) // 256 for end in (0, 255))


def configured(ranges: Sequence[Range]) -> Pool:
    """The pool of the configuration. Raises BadPool."""
    return Pool(DEFAULT, _ordered(ranges))


def collect(objects: Iterable[IPAddressPool], own: Pool) -> tuple[list[Pool], dict[str, str]]:
    """The pools to use, in the order they are tried in, and why others can't be: name -> a sentence."""
    used, refused = [own] if own.ranges else [], dict[str, str]()
    for found in sorted(objects, key=lambda o: (o.metadata.creation_timestamp or "", o.name)):
        if found.name == DEFAULT and own.ranges:
            refused[found.name] = f"the name {DEFAULT!r} is the configured pool's; choose another"
            continue
        try:
            pool = _pool(found)
        except (BadPool, ValueError) as error:
            refused[found.name] = str(error)
            continue
        if other := next((u for u in used if _overlap(u.ranges, pool.ranges)), None):
            refused[found.name] = f"its addresses overlap those of pool {other}; give each address to one pool"
            continue
        used.append(pool)
    return sorted(used, key=lambda pool: pool.rank), refused


def _pool(found: IPAddressPool) -> Pool:
    allocation = found.spec.service_allocation or ServiceAllocation()
    return Pool(
        name=found.name,
        ranges=_ordered([parse_range(text) for text in found.spec.addresses]),
        auto_assign=found.spec.auto_assign,
        avoid_buggy=found.spec.avoid_buggy_ips,
        priority=allocation.priority,
        namespaces=frozenset(allocation.namespaces),
        namespace_selectors=tuple(map(from_label_selector, allocation.namespace_selectors)),
        service_selectors=tuple(map(from_label_selector, allocation.service_selectors)),
    )


def _span(found: Range) -> tuple[int, int, int]:
    return found[0].version, int(found[0]), int(found[1])


def _ordered(ranges: Sequence[Range]) -> tuple[Range, ...]:
    ordered = sorted(ranges, key=_span)
    for first, last in ordered:
        if int(last) < int(first):
            raise BadPool(f"pool {first}-{last} ends before it begins")
    for one, other in pairwise(ordered):
        if _overlap([one], [other]):
            raise BadPool(f"pools {one[0]}-{one[1]} and {other[0]}-{other[1]} overlap")
    return tuple(ordered)


def _overlap(ours: Iterable[Range], theirs: Sequence[Range]) -> bool:
    return any(
        a[0].version == b[0].version and int(a[0]) <= int(b[1]) and int(b[0]) <= int(a[1]) for a in ours for b in theirs
    )
