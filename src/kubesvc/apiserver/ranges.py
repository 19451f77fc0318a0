"""Where cluster IPs come from: the ServiceCIDR objects that aren't on their way out.

A claim is committed together with the check that the range it lies in is still as it was read. So nobody gets an
address from a range after its deletion was asked for, and the controller that lets a range go sees every address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from kubesvc.api.registry import SERVICE_CIDR
from kubesvc.apiserver import stored
from kubesvc.apiserver.state import State
from kubesvc.store.protocol import Check

Network = IPv4Network | IPv6Network

_FIRST = stored.key(SERVICE_CIDR, "", "kubernetes")


@dataclass(frozen=True, slots=True)
class Ranges:
    """(network, key of its ServiceCIDR, revision), in the order in which they are used."""

    found: tuple[tuple[Network, str, int], ...]

    @property
    def networks(self) -> tuple[Network, ...]:
        return tuple(network for network, _, _ in self.found)

    def checks(self, addresses: Iterable[str]) -> list[Check]:
        """That a range of each address stays as it is."""
        wanted: dict[str, Check] = {}
        for address in map(ip_address, addresses):
            covering = next(((k, r) for n, k, r in self.found if n.version == address.version and address in n), None)
            if covering is not None:
                wanted[covering[0]] = Check(covering[0], revision=covering[1])
        return list(wanted.values())


async def read_ranges(state: State) -> Ranges:
    """The default range first, the others in the order of their names."""
    page = await state.store.list(stored.collection(SERVICE_CIDR))
    ranges: list[tuple[Network, str, int]] = []
    for item in sorted(page.items, key=lambda item: (item.key != _FIRST, item.key)):
        tree = state.lines.tree(item.key, item.value, item.revision)
        if not tree["metadata"].get("deletionTimestamp"):
            ranges += [(_network(cidr), item.key, item.revision) for cidr in tree["spec"]["cidrs"]]
    return Ranges(tuple(ranges))


@lru_cache(maxsize=256)
def _network(cidr: str) -> Network:
    return ip_network(cidr)
