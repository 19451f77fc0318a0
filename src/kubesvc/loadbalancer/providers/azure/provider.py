"""Azure's Standard load balancer, shared by all Services of the cluster. See docs/decisions/0029.

    ensure   public IPs ──► frontend, rules, probes (one document) ──► security rules (one document) ──► status
    delete   security rules ──► rules, probes, frontend ──► public IPs

Each step is found done when it is done: names come from the Service's uid, and what there is, is read. So a step whose
answer got lost is taken again without harm, and nothing has to be remembered over a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import ip_address

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service
from kubesvc.api.meta import JSON
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.provider import Change, ProviderFailed
from kubesvc.loadbalancer.providers.azure import addresses, balancer, firewall
from kubesvc.loadbalancer.providers.azure.balancer import Frontend, Share, Site
from kubesvc.loadbalancer.providers.azure.client import Client
from kubesvc.loadbalancer.providers.azure.config import AzureConfig
from kubesvc.loadbalancer.providers.azure.document import Shared, Store
from kubesvc.loadbalancer.providers.azure.firewall import Door
from kubesvc.loadbalancer.providers.azure.merged import Merged
from kubesvc.loadbalancer.providers.azure.publicips import PublicIPs
from kubesvc.loadbalancer.providers.azure.wish import FAMILIES, Wish, remarks, wish_of


class AzureProvider:
    """Provider of the shared load balancers `cluster` (public) and `cluster-internal`."""

    name = "azure"

    def __init__(self, config: AzureConfig, cluster: str, client: Client) -> None:
        self._config, self._cluster, self._client = config, cluster, client
        self._changed: Callable[[Change], None] = lambda _: None
        self._living: dict[str, str] = {}  # uid -> key of the Services that have, or shall have, a load balancer
        self._waiting: set[str] = set()  # uids of those that aren't served as they want
        self._nodes: Mapping[str, Mapping[str, str]] | None = None  # family -> node -> address
        self._public, self._internal = cluster, f"{cluster}-internal"
        self._balancers = {name: self._balancer(name) for name in (self._public, self._internal)}
        self._group: Shared[tuple[Door, ...]] = Shared(
            Store(client.get_group, client.put_group, self._never), self._merge_group, fresh=config.fresh,
            pause=config.poll,
        )  # fmt: skip
        self._ips = PublicIPs(client, config)

    def owns(self, load_balancer_class: str) -> bool:
        return load_balancer_class == self._config.load_balancer_class

    def remarks(self, service: Service) -> Sequence[str]:
        return remarks(service)

    async def run(self, changed: Callable[[Change], None]) -> None:
        self._changed = changed
        try:
            while True:
                await asyncio.sleep(self._config.fresh)
                if self._waiting:  # for something that may have been made in Azure meanwhile
                    changed(Change.CAPACITY)
        finally:
            self._client.close()

    async def adopt(self, services: Iterable[Service]) -> None:
        self._living |= {s.metadata.uid: "/".join(s.key) for s in services}

    # ── ensure ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        uid = service.metadata.uid
        self._waiting.add(uid)
        status = await self._ensure(service, nodes)
        self._waiting.discard(uid)
        return status

    async def _ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        uid = service.metadata.uid
        self._living[uid] = "/".join(service.key)
        wish = wish_of(service)
        self._nodes = _by_family(nodes)
        ips: dict[str, JSON] = {}
        if not wish.internal:
            for family in wish.families:
                ips[family] = await self._ips.ensure(wish, family, self._cluster)
        here, there = (self._internal, self._public) if wish.internal else (self._public, self._internal)
        share = balancer.share_of(wish, self._frontends(wish, ips))
        applied = await self._balancers[here].apply(uid, share)
        if applied.refused is not None:
            raise wish.refused(*applied.refused)
        shown = {
            family: ips[family]["properties"].get("ipAddress", "")
            if family in ips
            else balancer.frontend_address(applied.document, uid, family)
            for family in wish.families
        }
        if not all(shown.values()):
            raise ProviderFailed(f"Azure hasn't given an address yet: {shown}")
        vips = {family: [address] for family, address in shown.items()}
        where = vips if wish.floating else {family: list(self._nodes[family].values()) for family in wish.families}
        opened = await self._group.apply(uid, firewall.doors(wish, where))
        if opened.refused is not None:
            raise wish.refused(*opened.refused)
        left = await self._balancers[there].apply(uid, None)
        self._ips.settle(uid, {ip["name"] for ip in ips.values()} or {""})
        await self._collect(self._living.keys())
        if applied.freed or left.freed:
            self._changed(Change.CAPACITY)
        # VIP: the load balancer passes packets on as they are, so a proxy may serve the address in the cluster.
        return LoadBalancerStatus(
            ingress=[LoadBalancerIngress(ip=shown[family], ip_mode="VIP") for family in wish.families]
        )

    def _frontends(self, wish: Wish, ips: Mapping[str, JSON]) -> list[Frontend]:
        if wish.internal:
            return [balancer.internal_frontend(wish, family, self._config) for family in wish.families]
        return [addresses.frontend_of(ips[family], family, self._cluster) for family in wish.families]

    # ── delete ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def delete(self, service: Service) -> None:
        uid = service.metadata.uid
        self._waiting.discard(uid)
        await self._group.apply(uid, None)
        for document in self._balancers.values():
            await document.apply(uid, None)
        self._ips.settle(uid, ())
        await self._collect(self._living.keys() - {uid})
        if self._living.pop(uid, None) is not None:
            self._changed(Change.CAPACITY)

    async def _collect(self, living: Collection[str]) -> None:
        """Delete the public IPs that nobody needs any more."""
        used: set[str] = set()
        for document in self._balancers.values():
            used |= balancer.used_public_ips(await document.current())
        await self._ips.collect(self._cluster, living, used)

    # ── the shared documents ─────────────────────────────────────────────────────────────────────────────────────────

    def _balancer(self, name: str) -> Shared[Share]:
        client = self._client
        store = Store(
            lambda: client.get_balancer(name),
            lambda document, etag: client.put_balancer(name, document, etag),
            lambda etag: client.delete_balancer(name, etag),
        )

        def merge(document: JSON | None, changes: Mapping[str, Share | None]) -> Merged:
            return balancer.merge(document, changes, Site(self._config, name, self._cluster, self._nodes, self._living))

        return Shared(store, merge, fresh=self._config.fresh, pause=self._config.poll)

    def _merge_group(self, document: JSON | None, changes: Mapping[str, tuple[Door, ...] | None]) -> Merged:
        if document is None:
            if any(changes.values()):
                why = f"there is no network security group {self._config.nsg_id}; create it, or give its name"
                return Merged(None, False, {uid: ("NoSecurityGroup", why) for uid, doors in changes.items() if doors})
            return Merged(None, False)
        return firewall.merge(document, changes)

    async def _never(self, etag: str) -> None:
        raise AssertionError("the security group is the user's")


def _by_family(nodes: Sequence[Node]) -> dict[str, dict[str, str]]:
    """family -> node -> its address. A node that another cloud made (its providerID says so) isn't in the VNet."""
    found: dict[str, dict[str, str]] = {family: {} for family in FAMILIES}
    for node in nodes:
        if node.spec.provider_id and not node.spec.provider_id.startswith("azure://"):
            continue
        for text in node.internal_ips:
            address = ip_address(text)
            found[f"IPv{address.version}"].setdefault(node.name, str(address))
    return found
