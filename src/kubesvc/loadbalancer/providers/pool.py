"""The built-in load balancer: addresses from pools, made real by the proxies and the announcers.

There is nothing to program here: every node's proxy serves the addresses that the Service's status shows, and the
announcers (`announce/`) have neighbours and routers send them. So `ensure` only decides which addresses, and is done.
Everything between two awaits is atomic: one allocator, one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address

from kubesvc.api.balancing import Address, IPAddressPool
from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Namespace, Service
from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON
from kubesvc.api.nodes import Node
from kubesvc.api.registry import IP_ADDRESS_POOL, NAMESPACE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session, Unreachable
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.provider import Change, Refused
from kubesvc.loadbalancer.providers import pools
from kubesvc.loadbalancer.providers.allocator import Allocator
from kubesvc.loadbalancer.providers.pools import Pool
from kubesvc.loadbalancer.providers.wishes import Refusal, sharing_of, wish_of

log = logging.getLogger(__name__)

SETTLE = 0.5  # seconds that counts of a pool's status may lag behind


class PoolProvider:
    """Provider of the pools' addresses. Raises BadPool when the configured ranges can't be used."""

    name = "pool"

    def __init__(self, session: Session, config: LoadBalancerConfig) -> None:
        self._session = session
        self._class = config.load_balancer_class
        self._own = pools.configured(config.pools)
        self._allocator = Allocator()
        self._objects = Informer[IPAddressPool](session, IP_ADDRESS_POOL, IPAddressPool)
        self._namespaces = Informer[Namespace](session, NAMESPACE, Namespace)
        self._changed: Callable[[Change], None] = lambda _: None
        self._refused: dict[str, str] = {}  # pool -> why it isn't used
        self._counted = asyncio.Event()

    def owns(self, load_balancer_class: str) -> bool:
        return load_balancer_class == self._class

    def remarks(self, service: Service) -> Sequence[str]:
        return ()

    async def run(self, changed: Callable[[Change], None]) -> None:
        self._changed = changed
        async with asyncio.TaskGroup() as group:
            group.create_task(self._objects.run())
            group.create_task(self._namespaces.run())
            group.create_task(self._show_counts())
            await self._ready()
            self._objects.on_change(self._pool_changed)
            self._namespaces.on_change(self._namespace_changed)

    async def adopt(self, services: Iterable[Service]) -> None:
        """Hold what their status shows. The older of two Services that show one address keeps it."""
        await self._ready()
        self._configure()
        for service in sorted(services, key=lambda s: (s.metadata.creation_timestamp or "", s.key)):
            lost = self._allocator.adopt(service.key, _shown(service), sharing_of(service))
            if lost:
                listed = ", ".join(map(str, lost))
                log.warning("service %s shows %s, which it can't keep", "/".join(service.key), listed)

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        key = service.key
        namespace = self._namespaces.get("", service.namespace)
        labels = namespace.metadata.labels if namespace else {}
        wish = wish_of(service)
        granted = (
            wish
            if isinstance(wish, Refusal)
            else self._allocator.assign(key, wish, lambda pool: pool.admits(service, labels))
        )
        self._counted.set()
        current = self._allocator.current(key)
        if _shown(service) == list(current):
            self._freed(self._allocator.settle(key))
        if isinstance(granted, Refusal):
            raise Refused(granted.reason, granted.message, _status(current))
        return _status(current)

    async def delete(self, service: Service) -> None:
        self._freed(self._allocator.release(service.key))

    async def _ready(self) -> None:
        await self._objects.synced.wait()
        await self._namespaces.synced.wait()

    def _pool_changed(self, old: IPAddressPool | None, new: IPAddressPool | None) -> None:
        """Counts in a status change nothing; neither does a first look at what `adopt` saw."""
        if _content(old) != _content(new):
            before = self._allocator.pools
            self._configure()
            if self._allocator.pools != before:
                self._changed(Change.RULES)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if old is not None and new is not None and old.metadata.labels != new.metadata.labels:
            self._changed(Change.RULES)

    def _configure(self) -> None:
        used, self._refused = pools.collect(self._objects.items.values(), self._own)
        for name, why in self._refused.items():
            log.warning("IPAddressPool %s isn't used: %s", name, why)
        if tuple(used) != self._allocator.pools:
            self._allocator.configure(used)
        self._counted.set()

    def _freed(self, addresses: Sequence[Address]) -> None:
        if addresses:
            self._counted.set()
            self._changed(Change.CAPACITY)

    # ── the pools' status ────────────────────────────────────────────────────────────────────────────────────────────

    async def _show_counts(self) -> None:
        """Keep each pool's status: what is in use, what is free, why it isn't used."""
        await self._ready()
        while True:
            await self._counted.wait()
            await asyncio.sleep(SETTLE)
            self._counted.clear()
            used = {pool.name: pool for pool in self._allocator.pools if pool is not self._own}
            for found in list(self._objects.items.values()):
                status = self._status_of(used.get(found.name), self._refused.get(found.name, ""))
                shown = found.status
                before = (shown.assigned_ipv4, shown.assigned_ipv6, shown.available_ipv4, shown.available_ipv6)
                if (*before, shown.message) == tuple(status.values()):
                    continue
                try:
                    await self._session.patch(IP_ADDRESS_POOL, "", found.name, {"status": status}, subresource="status")
                except (ApiError, Unreachable) as error:
                    log.debug("status of pool %s: %s", found.name, error)

    def _status_of(self, pool: Pool | None, why_not: str) -> JSON:
        assigned = [self._allocator.assigned(pool, version) if pool else 0 for version in (4, 6)]
        free = [(pool.size(v) if pool else 0) - n for v, n in zip((4, 6), assigned, strict=True)]
        free = [min(n, 2**63 - 1) for n in free]
        return {
            "assignedIPv4": assigned[0],
            "assignedIPv6": assigned[1],
            "availableIPv4": free[0],
            "availableIPv6": free[1],
            "message": why_not,
        }


def _content(found: IPAddressPool | None) -> object:
    return found and (found.spec, found.metadata.uid)


def _status(addresses: Iterable[Address]) -> LoadBalancerStatus:
    # VIP: packets reach the node with this destination, so a proxy may serve it in the cluster as well.
    return LoadBalancerStatus(ingress=[LoadBalancerIngress(ip=str(address), ip_mode="VIP") for address in addresses])


def _shown(service: Service) -> list[Address]:
    """The addresses that the Service's status shows."""
    shown: list[Address] = []
    for ingress in service.status.load_balancer.ingress:
        try:
            shown.append(ip_address(ingress.ip))
        except ValueError:  # a hostname
            continue
    return shown
