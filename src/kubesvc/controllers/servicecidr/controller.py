"""Lets a ServiceCIDR go once no address needs it. One key for all: what one covers another needn't."""

from __future__ import annotations

from ipaddress import ip_address

from kubesvc.api.labels import SERVICE_CIDR_PROTECTION
from kubesvc.api.meta import Object
from kubesvc.api.networking import ServiceCIDR
from kubesvc.api.registry import IP_ADDRESS, SERVICE_CIDR
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.servicecidr.plan import leaving, plan


class ServiceCidrController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._ranges = context.caches.service_cidrs
        self.queue: WorkQueue[str] = WorkQueue("servicecidr")
        self._ranges.on_change(self._range_changed)
        addresses = context.caches.for_kind(IP_ADDRESS)
        assert addresses is not None
        addresses.on_change(self._address_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile)

    def _range_changed(self, old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        self._consider()

    def _address_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            self._consider()

    def _consider(self) -> None:
        if leaving(self._ranges.items.values()):
            self.queue.add("ranges")

    async def reconcile(self, key: str) -> None:
        """The addresses are read from the server, after the ranges: nobody gets another from a range that is going."""
        ranges = list(self._ranges.items.values())
        if not leaving(ranges):
            return
        found = await self._context.session.list(IP_ADDRESS, Object)
        for free in plan(ranges, (ip_address(item.name) for item in found.items)):
            kept = [name for name in free.metadata.finalizers if name != SERVICE_CIDR_PROTECTION]
            meta = {"finalizers": kept, "resourceVersion": free.metadata.resource_version}
            await self._context.writer.patch(SERVICE_CIDR, free, {"metadata": meta})
