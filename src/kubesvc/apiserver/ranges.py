"""Where cluster IPs come from: the ServiceCIDR objects that aren't on their way out.

A claim is committed together with the check that the range it lies in is still as it was read. So nobody gets an
address from a range after its deletion was asked for, and the controller that lets a range go sees every address.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from kubesvc.api.names import parse_address
from kubesvc.api.registry import SERVICE_CIDR
from kubesvc.apiserver import stored
from kubesvc.apiserver.state import State
from kubesvc.store.protocol import Check, Versioned

Network = IPv4Network | IPv6Network

_FIRST = stored.key(SERVICE_CIDR, "", "kubernetes")


class Ranges:
    """`found` is (network, key of its ServiceCIDR, revision), in the order in which they are used."""

    def __init__(self, found: Iterable[tuple[Network, str, int]]) -> None:
        self.found = tuple(found)
        self.networks = tuple(network for network, _, _ in self.found)

    def checks(self, addresses: Iterable[str]) -> list[Check]:
        """That a range of each address stays as it is."""
        wanted: dict[str, Check] = {}
        for address in map(parse_address, addresses):
            assert address is not None
            covering = next(((k, r) for n, k, r in self.found if n.version == address.version and address in n), None)
            if covering is not None:
                wanted[covering[0]] = Check(covering[0], revision=covering[1])
        return list(wanted.values())


async def read_ranges(state: State) -> Ranges:
    """The default range first, the others in the order of their names."""
    page = await state.store.list(stored.collection(SERVICE_CIDR))
    return _ranges(tuple(page.items))


@lru_cache(maxsize=4)  # they seldom change
def _ranges(items: tuple[Versioned, ...]) -> Ranges:
    found: list[tuple[Network, str, int]] = []
    for item in sorted(items, key=lambda item: (item.key != _FIRST, item.key)):
        tree = stored.tree_of(item)
        if not tree["metadata"].get("deletionTimestamp"):
            found += [(ip_network(cidr), item.key, item.revision) for cidr in tree["spec"]["cidrs"]]
    return Ranges(found)
