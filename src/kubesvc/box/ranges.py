"""Which addresses a box uses: a node network nobody else has, and inside it the API, the nodes, the pool and the host.

    172.29.7.0/24      fd6b:7376:6307::/64
            .1                       ::1         the bridge; the API listens here
            .2 …                     ::2 …       node1, node2, …
            .200-.249                ::c8-::f9   load-balancer addresses: nobody's own, one node answers ARP or NDP
            .253                     ::fd        the cloud, where there is one (--cloud; IPv4 alone)
            .254                     ::fe        the host

Pure. Other sizes of IPv4 network keep the same proportions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import msgspec

from kubesvc.api.balancing import Range
from kubesvc.box.errors import BoxError
from kubesvc.box.families import Address, Network, split


class NodeNetwork(msgspec.Struct, frozen=True):
    """The addresses of one box's node network, of one family."""

    network: Network
    pool: Range

    @property
    def api(self) -> Address:
        return self.network[1]

    @property
    def host(self) -> Address:
        return host_of(self.network)

    @property
    def cloud(self) -> Address:
        return self.host - 1

    def node(self, number: int) -> Address:
        """The address of node `number`, counted from 1. Raises BoxError when the network is full."""
        address = self.network[1 + number]
        first, last = self.pool
        inside = int(first) <= int(address) <= int(last)
        if address in (self.host, self.cloud) or inside or number + 1 >= self.network.num_addresses - 1:
            raise BoxError(f"node network {self.network} has no address for node {number}; give a larger --node-cidr")
        return address


def host_of(network: Network) -> Address:
    """The host's own address."""
    return network[-2] if network.version == 4 else network[254]


def default_pool(network: Network) -> Range:
    """About the last fifth of the network, short of its last few addresses."""
    size = min(network.num_addresses, 256) if network.version == 6 else network.num_addresses
    first = size * 200 // 256
    return _range(network[first], network[first + size * 50 // 256 - 1])


def _range(first: Address, last: Address) -> Range:
    found: Range = (first, last)  # type: ignore[assignment]  # of one network, so of one family
    return found


def parse_pools(text: str, networks: Iterable[Network]) -> tuple[Range, ...]:
    """A pool of each network, in their order: those of `text`, separated by commas, else the usual one.

    Raises BoxError.
    """
    networks = tuple(networks)
    said: dict[int, Range] = {}  # version -> pool
    for part in split(text):
        version = 6 if ":" in part else 4
        network = next((network for network in networks if network.version == version), None)
        if network is None:
            raise BoxError(f"--lb-pool {part!r}: the box has no node network of IPv{version}; see --ip-family")
        if version in said:
            raise BoxError(f"--lb-pool {text!r}: expected one range of a family; more are IPAddressPool objects")
        said[version] = parse_pool(part, network)
    return tuple(said.get(network.version) or default_pool(network) for network in networks)


def parse_pool(text: str, network: Network) -> Range:
    """`FIRST-LAST` or a CIDR, inside the node network. Raises BoxError."""
    expected = f"expected FIRST-LAST or a CIDR inside the node network {network}"
    try:
        if "/" in text:
            block = ip_network(text)
            first, last = block[0], block[-1]
        else:
            first_text, _, last_text = text.partition("-")
            first, last = ip_address(first_text.strip()), ip_address((last_text or first_text).strip())
    except ValueError as error:
        raise BoxError(f"--lb-pool {text!r}: {error}; {expected}") from error
    if first not in network or last not in network or int(first) > int(last):
        raise BoxError(f"--lb-pool {text!r}: {expected}")
    host = host_of(network)
    taken = {network[0], network[1], network[-1], host}
    if any(int(first) <= int(address) <= int(last) for address in taken):
        raise BoxError(f"--lb-pool {text!r} holds an address the box itself uses ({network[1]} or {host})")
    return _range(first, last)


def candidates(version: int = 4) -> Iterator[Network]:
    """Node networks to try, in order: seldom used corners of the private ranges."""
    if version == 6:
        for last in range(256):
            yield IPv6Network(f"fd6b:7376:63{last:02x}::/64")
        return
    for third in range(256):
        yield IPv4Network(f"172.29.{third}.0/24")
    for third in range(256):
        yield IPv4Network(f"10.213.{third}.0/24")


def choose_network(taken: Iterable[Network], version: int = 4) -> Network:
    """The first candidate that overlaps nothing in `taken`. Raises BoxError when there is none."""
    occupied = [network for network in taken if network.prefixlen > 0]
    for candidate in candidates(version):
        if not any(candidate.overlaps(network) for network in occupied):
            return candidate
    raise BoxError("every node network that a box would choose is in use on this machine; give one with --node-cidr")
