"""loadBalancerSourceRanges -> the source addresses that may reach a load balancer's address. Pure.

Upstream's rules: blanks around a range don't count; a range of all addresses lifts the restriction; ranges restrict the
family they are of. Where they let this node in, the address itself is let in too: a node that holds it locally (some
clouds' do) connects from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from kubesvc.proxy.layout import unpack


def allowed(ranges: Iterable[str], address: bytes, node_ips: Iterable[bytes]) -> tuple[bytes, ...] | None:
    """First and last address of each range for connections to `address`, disjoint; None: every source may."""
    networks = [n for n in map(_network, ranges) if n is not None and n.max_prefixlen == 8 * len(address)]
    if not networks or any(n.prefixlen == 0 for n in networks):
        return None
    if any(unpack(ip) in network for ip in node_ips for network in networks):
        networks.append(ip_network(address))
    # The kernel's intervals may not overlap.
    collapsed = collapse_addresses(networks)  # type: ignore[type-var]  # all of one family
    return tuple(n.network_address.packed + n.broadcast_address.packed for n in collapsed)


def _network(text: str) -> IPv4Network | IPv6Network | None:
    """A range; None for what is none: the API server keeps that out, a foreign one may not."""
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        return None
