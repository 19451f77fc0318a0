"""Which Service holds which address of the pool. Pure, and it knows no API.

The state is rebuilt from the Services' own status, so that an address survives every restart; nothing else is stored.
An address that a Service moves away from stays held until `settle` says that the move is published: otherwise another
Service could be seen with it while the first still shows it.

Follows MetalLB's internal/allocator in its shape; `metallb.io/loadBalancerIPs` is honoured for those who come from it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise

from kubesvc.loadbalancer.config import Range
from kubesvc.loadbalancer.provider import BadPool

Key = tuple[str, str]  # namespace, name

ANNOTATIONS = ("kubesvc.dev/load-balancer-ips", "metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs")


class Reason(StrEnum):
    """Why an address can't be had; the word that the Service's condition shows."""

    POOL_EXHAUSTED = "PoolExhausted"
    ADDRESS_IN_USE = "AddressInUse"
    ADDRESS_OUTSIDE_POOL = "AddressOutsidePool"
    INVALID_ADDRESS = "InvalidAddress"
    CONFLICTING_REQUEST = "ConflictingRequest"
    FAMILY_NOT_SERVED = "FamilyNotServed"


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    message: str


def requested_address(load_balancer_ip: str, annotations: Mapping[str, str]) -> IPv4Address | Refusal | None:
    """The address a Service asks for by spec.loadBalancerIP or an annotation; None when any will do."""
    asked = {"spec.loadBalancerIP": load_balancer_ip} | {f"annotation {a}": annotations.get(a, "") for a in ANNOTATIONS}
    found: dict[IPv4Address, str] = {}  # address -> where it was asked for
    for where, text in asked.items():
        for part in filter(None, (p.strip() for p in text.split(","))):
            try:
                address = ip_address(part)
            except ValueError:
                return Refusal(Reason.INVALID_ADDRESS, f"{where}: {part!r} is not an IP address")
            if isinstance(address, IPv6Address):
                return Refusal(
                    Reason.FAMILY_NOT_SERVED, f"{where}: {address} is IPv6; the pool has only IPv4 addresses"
                )
            found.setdefault(address, where)
    if len(found) > 1:
        listed = ", ".join(f"{address} ({where})" for address, where in found.items())
        return Refusal(Reason.CONFLICTING_REQUEST, f"asks for several addresses, {listed}; ask for one")
    return next(iter(found), None)


class Allocator:
    """Addresses of some ranges and their holders."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = _checked(ranges)
        self._current: dict[Key, IPv4Address] = {}  # service -> the address it has
        self._leaving: dict[Key, set[IPv4Address]] = {}  # service -> addresses it moved away from, still held
        self._holder: dict[IPv4Address, Key] = {}  # address -> service, current and leaving ones
        self._returned: list[int] = []  # heap of freed addresses; one may since have been taken by request
        self._in_heap: set[int] = set()
        self._range, self._cursor = 0, int(self._ranges[0][0]) if self._ranges else 0  # everything before was looked at

    def __contains__(self, address: IPv4Address) -> bool:
        return any(first <= address <= last for first, last in self._ranges)

    def current(self, key: Key) -> IPv4Address | None:
        return self._current.get(key)

    def adopt(self, key: Key, address: IPv4Address) -> bool:
        """Hold what the service's status shows; False when it isn't of the pool (any more) or another holds it."""
        if address not in self or self._holder.get(address, key) != key:
            return False
        self._take(key, address)
        return True

    def assign(self, key: Key, wanted: IPv4Address | None) -> IPv4Address | Refusal:
        """The service's address: `wanted`, else the one it has, else the lowest free. A refusal changes nothing."""
        if wanted is not None and wanted not in self:
            return Refusal(
                Reason.ADDRESS_OUTSIDE_POOL, f"{wanted} is not in the pool {self}; ask for one that is, or for none"
            )
        if wanted is not None and (holder := self._holder.get(wanted, key)) != key:
            return Refusal(Reason.ADDRESS_IN_USE, f"{wanted} is held by Service {holder[0]}/{holder[1]}")
        if wanted is None and key in self._current:
            return self._current[key]
        address = wanted or self._lowest_free()
        if address is None:
            return Refusal(
                Reason.POOL_EXHAUSTED,
                f"the pool {self} has no free address, {self.size} in use; free one or extend the pool",
            )
        self._take(key, address)
        return address

    def settle(self, key: Key) -> list[IPv4Address]:
        """The service shows its current address and no other: free those it moved away from, and return them."""
        return self._free(self._leaving.pop(key, set()))

    def release(self, key: Key) -> list[IPv4Address]:
        """Free all that the service holds, and return it."""
        held = self._leaving.pop(key, set())
        if key in self._current:
            held.add(self._current.pop(key))
        return self._free(held)

    @property
    def size(self) -> int:
        return sum(int(last) - int(first) + 1 for first, last in self._ranges)

    def __str__(self) -> str:
        return ", ".join(f"{first}-{last}" for first, last in self._ranges) or "(empty)"

    def _take(self, key: Key, address: IPv4Address) -> None:
        before = self._current.get(key)
        if before is not None and before != address:
            self._leaving.setdefault(key, set()).add(before)
        self._leaving.get(key, set()).discard(address)
        self._current[key] = address
        self._holder[address] = key

    def _free(self, addresses: set[IPv4Address]) -> list[IPv4Address]:
        for address in addresses:
            del self._holder[address]
            if int(address) not in self._in_heap:
                self._in_heap.add(int(address))
                heapq.heappush(self._returned, int(address))
        return sorted(addresses)

    def _lowest_free(self) -> IPv4Address | None:
        while self._returned:
            number = heapq.heappop(self._returned)
            self._in_heap.discard(number)
            if (address := IPv4Address(number)) not in self._holder:
                return address
        while self._range < len(self._ranges):
            last = int(self._ranges[self._range][1])
            while self._cursor <= last:
                address = IPv4Address(self._cursor)
                self._cursor += 1
                if address not in self._holder:
                    return address
            self._range += 1
            if self._range < len(self._ranges):
                self._cursor = int(self._ranges[self._range][0])
        return None


def _checked(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """The ranges in order. Raises BadPool for one that ends before it begins or overlaps another."""
    ordered = sorted(ranges)
    for first, last in ordered:
        if last < first:
            raise BadPool(f"pool {first}-{last} ends before it begins")
    for (first, last), (other_first, other_last) in pairwise(ordered):
        if other_first <= last:
            raise BadPool(f"pools {first}-{last} and {other_first}-{other_last} overlap")
    return tuple(ordered)
