"""The addresses of a node's pod CIDRs: who has which. Pure; rebuilt at start from the pods that are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Exhausted(Exception):
    """Every address of a pod CIDR is in use."""


class AddressPool:
    """Hands out the addresses of `network`, each to one pod. The network's own, its first and its broadcast address
    are never given. The search goes on from the last one given, so a freed address rests before it is used again."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._first = int(network.network_address) + 2
        self._last = int(network.broadcast_address) - 1
        self._next = self._first
        self._owners: dict[int, str] = {}  # address -> pod uid
        self._held: dict[str, int] = {}  # pod uid -> address

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.network.version == 4 else IPv6Address(number)

    def held(self, uid: str) -> Address | None:
        found = self._held.get(uid)
        return None if found is None else self._address(found)

    def claim(self, uid: str, wanted: Address) -> bool:
        """Give `wanted` to a pod if it is of this network and free (or already the pod's)."""
        number = int(wanted)
        if wanted.version != self.network.version or not self._first <= number <= self._last:
            return False
        if self._owners.get(number, uid) != uid or self._held.get(uid, number) != number:
            return False
        self._owners[number], self._held[uid] = uid, number
        return True

    def allocate(self, uid: str, prefer: Address | None = None) -> Address:
        """The pod's address: the one it has, else `prefer` if free, else the next free one. Raises Exhausted."""
        if (held := self._held.get(uid)) is not None:
            return self._address(held)
        if prefer is not None and self.claim(uid, prefer):
            return prefer
        size = self._last - self._first + 1
        for step in range(min(size, len(self._owners) + 1)):
            number = self._first + (self._next - self._first + step) % size
            if number not in self._owners:
                self._next = number + 1
                self._owners[number], self._held[uid] = uid, number
                return self._address(number)
        raise Exhausted(f"no address is free in pod CIDR {self.network}: {size} pods have one")

    def release(self, uid: str) -> None:
        number = self._held.pop(uid, None)
        if number is not None:
            del self._owners[number]


class AddressPools:
    """One of each family that the node's pods have, the primary first: a pod gets an address of every one."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = tuple(networks)
        self._pools = tuple(map(AddressPool, networks))

    def claim(self, uid: str, wanted: Iterable[Address]) -> None:
        """Give those of `wanted` to a pod that are free."""
        for address in wanted:
            for pool in self._pools:
                pool.claim(uid, address)

    def allocate(self, uid: str, prefer: Sequence[Address] = ()) -> tuple[Address, ...]:
        """The pod's addresses, as `AddressPool.allocate`; all or none. Raises Exhausted."""
        try:
            found = []
            for pool in self._pools:
                same = next((a for a in prefer if a.version == pool.network.version), None)
                found.append(pool.allocate(uid, same))
            return tuple(found)
        except Exhausted:
            self.release(uid)
            raise

    def release(self, uid: str) -> None:
        for pool in self._pools:
            pool.release(uid)
