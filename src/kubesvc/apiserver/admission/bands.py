"""Choosing a free number or address at random, keeping the first few for those who ask for one by value.

    first ├── lower band, for static requests ──┼────────── upper: dynamic choices start here ──────────┤ last

A random start, then onward and around: upper band first, the lower one only when the upper is full (KEP-3070 for
addresses, KEP-3668 for node ports). Everything is an integer here; an address is its integer value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple


class Band(NamedTuple):
    """Numbers from `first` to `last`, both included; dynamic choices prefer `upper` and above."""

    first: int
    upper: int
    last: int


def _offset(size: int, step: int, limit: int) -> int:
    return 0 if size <= 16 else min(max(16, size // step), limit)


@lru_cache(maxsize=64)
def of_network(network: IPv4Network | IPv6Network) -> Band:
    """The addresses of a Service CIDR but its network address and, for IPv4, its broadcast address."""
    base, size = int(network.network_address), network.num_addresses
    last = base + size - (2 if network.version == 4 else 1)
    first = base + 1
    return Band(first, min(first + _offset(size, 16, 256), last), last)


def of_node_ports(first: int, last: int) -> Band:
    return Band(first, min(first + _offset(last - first + 1, 32, 128), last), last)


def choose(band: Band, taken: Callable[[int], bool], chooser: Callable[[int], int]) -> int | None:
    """A number of `band` that isn't `taken`, or None when all are. `chooser(n)` is random in [0, n)."""
    for low, high in ((band.upper, band.last), (band.first, band.upper - 1)):
        size = high - low + 1
        if size <= 0:
            continue
        start = chooser(size)
        for step in range(size):
            number = low + (start + step) % size
            if not taken(number):
                return number
    return None
