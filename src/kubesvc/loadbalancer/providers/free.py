"""The free addresses of some ranges, the lowest first, without a list of them all: an IPv6 pool has 2^64. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from kubesvc.api.balancing import Address, Range


class Free:
    """A cursor over the ranges, and a heap of what came back. An address may be taken without a word here: `take`
    asks whether each is free, and forgets those that aren't until they are given back."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = [(int(first), int(last)) for first, last in ranges]
        self._version = ranges[0][0].version if ranges else 4
        self._range = 0
        self._cursor = self._ranges[0][0] if ranges else 0  # everything before was looked at
        self._returned: list[int] = []
        self._in_heap: set[int] = set()

    def lowest(self, is_free: Callable[[Address], bool]) -> Address | None:
        """The lowest for which `is_free`. It stays on offer until it is no longer free."""
        while self._returned:
            if is_free(address := self._address(self._returned[0])):
                return address
            self._in_heap.discard(heapq.heappop(self._returned))
        while self._range < len(self._ranges):
            last = self._ranges[self._range][1]
            while self._cursor <= last:
                if is_free(address := self._address(self._cursor)):
                    return address
                self._cursor += 1
            self._range += 1
            if self._range < len(self._ranges):
                self._cursor = self._ranges[self._range][0]
        return None

    def give_back(self, address: Address) -> None:
        number = int(address)
        if number not in self._in_heap and self._passed(number):
            self._in_heap.add(number)
            heapq.heappush(self._returned, number)

    def _passed(self, number: int) -> bool:
        for index, (first, last) in enumerate(self._ranges):
            if first <= number <= last:
                return index < self._range or (index == self._range and number < self._cursor)
        return False

    def _address(self, number: int) -> Address:
        # A small number is an IPv4 address unless told otherwise.
        packed = number.to_bytes(4 if self._version == 4 else 16, "big")
        return ip_address(packed)
