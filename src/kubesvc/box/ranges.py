"""Which addresses a box uses: a node network nobody else has, and inside it the API, the nodes, the pool and the host.

    172.29.7.0/24      .1        the bridge; the API listens here
                       .2 …      node1, node2, …
                       .200-.249 load-balancer addresses: nobody's own, one node answers ARP for each
                       .254      the host

Pure. Other sizes of network keep the same proportions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from kubesvc.box.errors import BoxError

SMALLEST = 26
"""A node network with fewer than 64 addresses has no room for a pool."""


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """The addresses of one box's node network."""

    network: IPv4Network
    pool: tuple[IPv4Address, IPv4Address]

    @property
    def api(self) -> IPv4Address:
        return self.network[1]

    @property
    def host(self) -> IPv4Address:
        return self.network[-2]

    def node(self, number: int) -> IPv4Address:
        """The address of node `number`, counted from 1. Raises BoxError when the network is full."""
        address = self.network[1 + number]
        first, last = self.pool
        if address == self.host or first <= address <= last or number + 1 >= self.network.num_addresses - 1:
            raise BoxError(f"node network {self.network} has no address for node {number}; give a larger --node-cidr")
        return address


def default_pool(network: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
    """About the last fifth of the network, short of its last few addresses."""
    size = network.num_addresses
    first = size * 200 // 256
    return network[first], network[first + size * 50 // 256 - 1]


def parse_pool(text: str, network: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
    """`FIRST-LAST` or a CIDR, inside the node network. Raises BoxError."""
    expected = f"expected FIRST-LAST or a CIDR inside the node network {network}"
    try:
        if "/" in text:
            block = IPv4Network(text)
            first, last = block[0], block[-1]
        else:
            first_text, _, last_text = text.partition("-")
            first, last = IPv4Address(first_text.strip()), IPv4Address((last_text or first_text).strip())
    except ValueError as error:
        raise BoxError(f"--lb-pool {text!r}: {error}; {expected}") from error
    if first > last or first not in network or last not in network:
        raise BoxError(f"--lb-pool {text!r}: {expected}")
    taken = {network[0], network[1], network[-1], network[-2]}
    if any(first <= address <= last for address in taken):
        raise BoxError(f"--lb-pool {text!r} holds an address the box itself uses ({network[1]} or {network[-2]})")
    return first, last


def candidates() -> Iterator[IPv4Network]:
    """Node networks to try, in order: seldom used corners of the private ranges."""
    for third in range(256):
        yield IPv4Network(f"172.29.{third}.0/24")
    for third in range(256):
        yield IPv4Network(f"10.213.{third}.0/24")


def choose_network(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps nothing in `taken`. Raises BoxError when there is none."""
    occupied = [network for network in taken if network.prefixlen > 0]
    for candidate in candidates():
        if not any(candidate.overlaps(network) for network in occupied):
            return candidate
    raise BoxError("every node network that a box would choose is in use on this machine; give one with --node-cidr")


def readable(cidrs: Iterable[str]) -> Iterator[IPv4Network]:
    """The networks of other boxes, as they wrote them down: of one of another version, what can be read."""
    for text in (part for several in cidrs for part in several.split(",")):
        with suppress(ValueError):
            yield IPv4Network(text)
