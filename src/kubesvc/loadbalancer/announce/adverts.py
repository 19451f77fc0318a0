"""What L2Advertisements and BGPAdvertisements say of a pool, a node and an interface. Pure.

A pool that no advertisement of either kind names is answered for by ARP and NDP, by every node, on every interface: an
address that nobody announces serves nobody. (MetalLB announces nothing then.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec

from kubesvc.api.balancing import BGPAdvertisement, L2Advertisement
from kubesvc.api.meta import LabelSelector
from kubesvc.api.selectors import Selector, from_label_selector, matches

Network = IPv4Network | IPv6Network
Labels = Mapping[str, str]


class L2Rule(msgspec.Struct, frozen=True):
    """Empty `nodes`: every node. Empty `interfaces`: every interface."""

    pools: frozenset[str]
    nodes: tuple[Selector, ...] = ()
    interfaces: frozenset[str] = frozenset()

    def covers(self, pool: str, node: Labels, interface: str) -> bool:
        return (
            pool in self.pools
            and (not self.interfaces or interface in self.interfaces)
            and (not self.nodes or any(matches(s, node) for s in self.nodes))
        )


class BGPRule(msgspec.Struct, frozen=True):
    """Empty `peers`: all of them."""

    pools: frozenset[str]
    nodes: tuple[Selector, ...] = ()
    peers: frozenset[str] = frozenset()
    local_pref: int | None = None
    communities: tuple[str, ...] = ()
    lengths: tuple[int, int] = (32, 128)

    def covers(self, pool: str, node: Labels) -> bool:
        return pool in self.pools and (not self.nodes or any(matches(s, node) for s in self.nodes))


class Route(msgspec.Struct, frozen=True):
    """A network to tell some peers (None: all) of, with its attributes."""

    network: Network
    peers: frozenset[str] | None = None
    local_pref: int | None = None
    communities: tuple[str, ...] = ()


def rules(
    l2: Iterable[L2Advertisement], bgp: Iterable[BGPAdvertisement], pools: Mapping[str, Labels]
) -> tuple[list[L2Rule], list[BGPRule]]:
    """The rules of the advertisements. `pools`: name -> labels of its object."""
    l2_rules = [
        L2Rule(
            _selected(a.spec.ip_address_pools, a.spec.ip_address_pool_selectors, pools),
            tuple(map(from_label_selector, a.spec.node_selectors)),
            frozenset(a.spec.interfaces),
        )
        for a in sorted(l2, key=lambda a: a.name)
    ]
    bgp_rules = [
        BGPRule(
            _selected(a.spec.ip_address_pools, a.spec.ip_address_pool_selectors, pools),
            tuple(map(from_label_selector, a.spec.node_selectors)),
            frozenset(a.spec.peers),
            a.spec.local_pref,
            tuple(a.spec.communities),
            (a.spec.aggregation_length, a.spec.aggregation_length_v6),
        )
        for a in sorted(bgp, key=lambda a: a.name)
    ]
    named = frozenset[str]().union(*(r.pools for r in l2_rules), *(r.pools for r in bgp_rules))
    if silent := frozenset(pools) - named:
        l2_rules.append(L2Rule(silent))
    return l2_rules, bgp_rules


def routes(rules: Iterable[BGPRule], vips: Iterable[tuple[str, str]], node: Labels) -> list[Route]:
    """What a node with these labels tells its peers, of `vips`: (address, pool) that it can serve."""
    given = list(vips)
    found: set[Route] = set()
    for rule in rules:
        for address, pool in given:
            if rule.covers(pool, node):
                length = rule.lengths[":" in address]
                network = ip_network(f"{address}/{length}", strict=False)
                found.add(Route(network, rule.peers or None, rule.local_pref, rule.communities))
    return sorted(found, key=lambda r: (r.network.version, int(r.network.network_address), repr(r)))


def _selected(names: Sequence[str], selectors: Sequence[LabelSelector], pools: Mapping[str, Labels]) -> frozenset[str]:
    if not names and not selectors:
        return frozenset(pools)
    by_labels = {name for name, labels in pools.items() for s in selectors if matches(from_label_selector(s), labels)}
    return frozenset(names) & frozenset(pools) | by_labels
