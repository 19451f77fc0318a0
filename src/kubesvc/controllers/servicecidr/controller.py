"""Keeps each ServiceCIDR's finalizer and Ready condition true. The API server does the claiming of addresses."""

from __future__ import annotations

from ipaddress import ip_address

from kubesvc.api.meta import Object
from kubesvc.api.networking import ServiceCIDR
from kubesvc.api.registry import IP_ADDRESS, SERVICE_CIDR
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.servicecidr.plan import plan


class ServiceCidrController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.queue: WorkQueue[str] = WorkQueue("servicecidr")
        self._caches.service_cidrs.on_change(self._cidr_changed)
        addresses = self._caches.for_kind(IP_ADDRESS)
        assert addresses is not None
        self._addresses = addresses
        addresses.on_change(self._address_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile)

    def _cidr_changed(self, old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        """Another range may cover what one being deleted is kept for."""
        if new is not None:
            self.queue.add(new.name)
        self._look_at_those_going()

    def _address_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None:
            self._look_at_those_going()

    def _look_at_those_going(self) -> None:
        for cidr in self._caches.service_cidrs.items.values():
            if cidr.metadata.deletion_timestamp is not None:
                self.queue.add(cidr.name)

    async def reconcile(self, name: str) -> None:
        cidr: ServiceCIDR | None = self._caches.service_cidrs.get("", name)
        if cidr is None:
            return
        others = [c for c in self._caches.service_cidrs.items.values() if c.name != name]
        claimed = (ip_address(address) for _, address in self._addresses.items)
        grace = self._context.config.service_cidr_grace
        decided = plan(cidr, others, claimed, self._context.now(), grace)
        if decided.patch is not None:
            await self._context.writer.patch(SERVICE_CIDR, cidr, decided.patch)
        if decided.status is not None:
            await self._context.writer.patch(SERVICE_CIDR, cidr, decided.status, subresource="status")
        if decided.wait is not None:
            self.queue.add_after(name, decided.wait)
