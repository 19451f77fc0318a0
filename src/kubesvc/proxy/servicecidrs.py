"""Which networks cluster IPs come from, as the ServiceCIDR objects say: they come and go while the proxy runs.

A range that is to go counts until its object is gone, which is after its last address. An API without any (or one from
before 1.33) changes nothing: what the proxy was started with holds.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network

from kubesvc.api.networking import ServiceCIDR
from kubesvc.api.registry import SERVICE_CIDR
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session

Network = IPv4Network | IPv6Network
Networks = tuple[Network, ...]


class ServiceCidrs:
    """Calls `changed(before, now)` for each change of the networks, which at first are those `known`."""

    def __init__(self, session: Session, known: Networks, changed: Callable[[Networks, Networks], None]) -> None:
        self._known, self._changed = known, changed
        self._informer = Informer[ServiceCIDR](session, SERVICE_CIDR, ServiceCIDR)
        self._informer.on_change(lambda old, new: self._look())
        self._informer.on_sync(self._look)

    async def run(self) -> None:
        """Follow the API until cancelled."""
        await self._informer.run()

    def _look(self) -> None:
        if not self._informer.synced.is_set():
            return
        objects = sorted(self._informer.items.values(), key=lambda found: (found.name != "kubernetes", found.name))
        now = tuple(dict.fromkeys(ip_network(text) for found in objects for text in found.spec.cidrs))
        if now and set(now) != set(self._known):
            before, self._known = self._known, now
            self._changed(before, now)
