"""Which ServiceCIDRs that were asked to go are free to: no address in use would be left without a range.

Source: KEP-1880, pkg/controller/servicecidrs.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from kubesvc.api.labels import SERVICE_CIDR_PROTECTION
from kubesvc.api.networking import ServiceCIDR

Network = IPv4Network | IPv6Network


def leaving(ranges: Iterable[ServiceCIDR]) -> list[ServiceCIDR]:
    """Those that wait for their addresses."""
    return [
        found
        for found in ranges
        if found.metadata.deletion_timestamp is not None and SERVICE_CIDR_PROTECTION in found.metadata.finalizers
    ]


def networks(found: ServiceCIDR) -> list[Network]:
    return [ip_network(cidr) for cidr in found.spec.cidrs]


def plan(ranges: Iterable[ServiceCIDR], addresses: Iterable[IPv4Address | IPv6Address]) -> list[ServiceCIDR]:
    """The ones to let go, where `addresses` are those in use, read after the ranges were asked to go."""
    ranges = list(ranges)
    staying = [n for found in ranges if found.metadata.deletion_timestamp is None for n in networks(found)]
    alone = [address for address in addresses if not any(address in network for network in staying)]
    return [
        found
        for found in leaving(ranges)
        if not any(address in network for network in networks(found) for address in alone)
    ]
