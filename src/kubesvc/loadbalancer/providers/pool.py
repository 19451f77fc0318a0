"""The built-in load balancer: an address from a configured pool, made real by the proxies and the announcers.

There is nothing to program here: every node's proxy serves the address that the Service's status shows, and one elected
node answers ARP for it (`announce/`). So `ensure` only decides which address, and is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Node, Service
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.allocator import Allocator, Reason, Refusal, requested_address

log = logging.getLogger(__name__)


class PoolProvider:
    """Provider of the pool's addresses. Raises BadPool when the configured ranges can't be used."""

    def __init__(self, config: LoadBalancerConfig) -> None:
        self._class = config.load_balancer_class
        self._serve_unclassed = config.serve_unclassed
        self._allocator = Allocator(config.pools)
        self._handlers: list[Callable[[], None]] = []

    def owns(self, service: Service) -> bool:
        wanted = service.spec.load_balancer_class
        return self._serve_unclassed if wanted is None else wanted == self._class

    def on_capacity(self, handler: Callable[[], None]) -> None:
        self._handlers.append(handler)

    async def adopt(self, services: Iterable[Service]) -> None:
        """Hold what their status shows. The older of two Services that show one address keeps it."""
        for service in sorted(services, key=lambda s: (s.metadata.creation_timestamp or "", s.key)):
            for address in _shown(service):
                if not self._allocator.adopt(service.key, address):
                    log.warning("service %s shows %s, which it can't keep", "/".join(service.key), address)

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        key = service.key
        granted = _request(service)
        if not isinstance(granted, Refusal):
            granted = self._allocator.assign(key, granted)
        if isinstance(granted, Refusal):
            raise Refused(granted.reason, granted.message, _status(self._allocator.current(key)))
        if _shown(service) == [granted]:
            self._freed(self._allocator.settle(key))
        return _status(granted)

    async def delete(self, service: Service) -> None:
        self._freed(self._allocator.release(service.key))

    def _freed(self, addresses: list[IPv4Address]) -> None:
        if addresses:
            for handler in self._handlers:
                handler()


def _request(service: Service) -> IPv4Address | Refusal | None:
    if service.spec.ip_families and "IPv4" not in service.spec.ip_families:
        return Refusal(Reason.FAMILY_NOT_SERVED, "the Service is IPv6 only; the pool has only IPv4 addresses")
    return requested_address(service.spec.load_balancer_ip, service.metadata.annotations)


def _status(address: IPv4Address | None) -> LoadBalancerStatus:
    # VIP: packets reach the node with this destination, so a proxy may serve it in the cluster as well.
    return LoadBalancerStatus(ingress=[LoadBalancerIngress(ip=str(address), ip_mode="VIP")] if address else [])


def _shown(service: Service) -> list[IPv4Address]:
    """The IPv4 addresses that the Service's status shows."""
    shown: list[IPv4Address] = []
    for ingress in service.status.load_balancer.ingress:
        try:
            shown.append(IPv4Address(ingress.ip))
        except AddressValueError:
            continue
    return shown
