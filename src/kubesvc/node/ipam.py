"""The addresses of a node's pod CIDR: who has which. Pure; rebuilt at start from the pods that are there."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network


class Exhausted(Exception):
    """Every address of the pod CIDR is in use."""


class AddressPool:
    """Hands out the addresses of `network`, each to one pod. The network's own, its first and its broadcast address
    are never given. The search goes on from the last one given, so a freed address rests before it is used again."""

    def __init__(self, network: IPv4Network) -> None:
        self.network = network
        self._first = int(network.network_address) + 2
        self._last = int(network.broadcast_address) - 1
        self._next = self._first
        self._owners: dict[int, str] = {}  # address -> pod uid
        self._held: dict[str, int] = {}  # pod uid -> address

    def held(self, uid: str) -> IPv4Address | None:
        found = self._held.get(uid)
        return None if found is None else IPv4Address(found)

    def claim(self, uid: str, wanted: IPv4Address) -> bool:
        """Give `wanted` to a pod if it is of this network and free (or already the pod's)."""
        number = int(wanted)
        if not self._first <= number <= self._last or self._owners.get(number, uid) != uid:
            return False
        if self._held.get(uid, number) != number:
            return False
        self._owners[number], self._held[uid] = uid, number
        return True

    def allocate(self, uid: str, prefer: IPv4Address | None = None) -> IPv4Address:
        """The pod's address: the one it has, else `prefer` if free, else the next free one. Raises Exhausted."""
        if (held := self._held.get(uid)) is not None:
            return IPv4Address(held)
        if prefer is not None and self.claim(uid, prefer):
            return prefer
        size = self._last - self._first + 1
        for step in range(size):
            number = self._first + (self._next - self._first + step) % size
            if number not in self._owners:
                self._next = number + 1
                self._owners[number], self._held[uid] = uid, number
                return IPv4Address(number)
        raise Exhausted(f"no address is free in pod CIDR {self.network}: {size} pods have one")

    def release(self, uid: str) -> None:
        number = self._held.pop(uid, None)
        if number is not None:
            del self._owners[number]
