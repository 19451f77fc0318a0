"""What an announcer knows: Services, slices, Nodes, pools, advertisements; and what follows from it for its node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubesvc.api.balancing import BGPAdvertisement, BGPPeer, IPAddressPool, L2Advertisement
from kubesvc.api.core import Service
from kubesvc.api.nodes import Node
from kubesvc.api.registry import BGP_ADVERTISEMENT, BGP_PEER, IP_ADDRESS_POOL, L2_ADVERTISEMENT, NODE, SERVICE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.loadbalancer.announce.adverts import BGPRule, L2Rule, rules
from kubesvc.loadbalancer.announce.election import Member, Vip, addresses, is_local
from kubesvc.loadbalancer.announce.endpoints import EndpointHosts
from kubesvc.loadbalancer.config import AnnounceConfig
from kubesvc.loadbalancer.nodes import is_eligible
from kubesvc.loadbalancer.providers import pools


class World:
    """Caches; `changed` is called when something that concerns announcing did."""

    def __init__(self, session: Session, config: AnnounceConfig, changed: Callable[[], None]) -> None:
        self._session, self._config, self._changed = session, config, changed
        self._own = pools.configured(config.pools)
        self.services = Informer(session, SERVICE, Service, fields="spec.type=LoadBalancer")
        self.nodes = Informer(session, NODE, Node)
        self.pools = Informer(session, IP_ADDRESS_POOL, IPAddressPool)
        self.l2 = Informer(session, L2_ADVERTISEMENT, L2Advertisement)
        self.bgp = Informer(session, BGP_ADVERTISEMENT, BGPAdvertisement)
        self.peers = Informer(session, BGP_PEER, BGPPeer)
        self._endpoints: EndpointHosts | None = None

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Start following, in `group`; returns once everything is known."""
        informers = (self.services, self.nodes, self.pools, self.l2, self.bgp, self.peers)
        for informer in informers:
            group.create_task(informer.run())
        for informer in informers:
            await informer.synced.wait()
        self._endpoints = EndpointHosts(self._session, group, self._changed)
        self.nodes.on_change(self._node_changed)
        self.pools.on_change(lambda old, new: self._unless(bool(old and new and old.spec == new.spec)))
        self.peers.on_change(lambda old, new: self._unless(bool(old and new and old.spec == new.spec)))
        self.services.on_change(lambda _old, _new: self._changed())
        self.l2.on_change(lambda _old, _new: self._changed())
        self.bgp.on_change(lambda _old, _new: self._changed())

    @property
    def node(self) -> Node | None:
        """This node."""
        return self.nodes.get("", self._config.node_name)

    def members(self, heard: dict[str, str], interface: str) -> list[Member]:
        """The nodes that may announce on the segment of `interface`; `heard`: uid -> interface of those alive there."""
        return [
            Member(
                node.name,
                interface if node.name == self._config.node_name else heard[node.metadata.uid],
                node.spec.unschedulable,
                node.metadata.labels,
            )
            for node in self.nodes.items.values()
            if is_eligible(node) and (node.name == self._config.node_name or node.metadata.uid in heard)
        ]

    def eligible(self) -> set[str]:
        """uids of the nodes that may announce, if they live."""
        return {node.metadata.uid for node in self.nodes.items.values() if is_eligible(node)}

    def rules(self) -> tuple[list[L2Rule], list[BGPRule]]:
        labels = {pool.name: self._labels(pool.name) for pool in self._pools()}
        return rules(self.l2.items.values(), self.bgp.items.values(), labels)

    def vips(self, unknown: Callable[[Vip], bool]) -> list[Vip]:
        """What is to be announced. Where it isn't known yet which nodes have endpoints, `unknown` says whether this
        one has: what it did before."""
        assert self._endpoints is not None
        used = self._pools()
        found = [(s, a) for s in self.services.items.values() if (a := addresses(s, used))]
        self._endpoints.follow({s.key for s, _ in found if is_local(s)})
        vips: list[Vip] = []
        for service, given in found:
            for address, pool in given:
                hosts: frozenset[str] | None = None
                if is_local(service):
                    hosts = self._endpoints.of(service.key, address.version)
                    if hosts is None:
                        me = frozenset({self._config.node_name})
                        hosts = me if unknown(Vip(address, None, pool)) else frozenset()
                vips.append(Vip(address, hosts, pool))
        return vips

    def _pools(self) -> list[pools.Pool]:
        return pools.collect(self.pools.items.values(), self._own)[0]

    def _labels(self, pool: str) -> dict[str, str]:
        found = self.pools.get("", pool)
        return found.metadata.labels if found else {}

    def _unless(self, same: bool) -> None:
        if not same:
            self._changed()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Heartbeats change nothing."""
        self._unless(_concerns(old) == _concerns(new))


def _concerns(node: Node | None) -> object:
    return node and (
        is_eligible(node), node.spec.unschedulable, node.metadata.labels, node.metadata.uid, node.internal_ips
    )  # fmt: skip
