"""Ports of this node itself that packets for Services come to, and that another's input filter may close.

    a Service's healthCheckNodePort ─► a load balancer asks this node there
    an endpoint at one of this node's own addresses (the API server, DNS, pods on the host's network) ─► its port

Everything else that goes to a Service is forwarded to a pod.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.proxy.frontends import Key
from kubesvc.proxy.layout import PROTOCOLS
from kubesvc.proxy.policy import ours


class Door(NamedTuple):
    """A port that must be open. `version`: of IP."""

    protocol: str  # tcp, udp, sctp
    port: int
    version: int
    what: str


class Doors:
    """Feed it with `*_changed`; `changed` is called when `all()` is other than before."""

    def __init__(
        self, addresses: Iterable[IPv4Address | IPv6Address], changed: Callable[[], None], *, proxy_name: str = ""
    ) -> None:
        """`addresses`: this node's own."""
        self._own = {str(ip): ip.version for ip in addresses if not ip.is_loopback}
        self._versions = sorted(set(self._own.values()))
        self._changed = changed
        self._proxy_name = proxy_name
        self._checked: dict[Key, frozenset[Door]] = {}  # Service -> its health check's
        self._hosted: dict[Key, frozenset[Door]] = {}  # slice -> those of endpoints on this node

    def all(self) -> frozenset[Door]:
        return frozenset().union(*self._checked.values(), *self._hosted.values())

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        found: set[Door] = set()
        if new is not None and new.spec.health_check_node_port and ours(new, self._proxy_name):
            what = f"the health check of Service {new.namespace}/{new.name}"
            found = {Door("tcp", new.spec.health_check_node_port, version, what) for version in self._versions}
        self._set(self._checked, old or new, found)

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        found: set[Door] = set()
        for endpoint in new.endpoints if new is not None else ():
            if new is not None and endpoint.addresses and endpoint.addresses[0] in self._own:
                version = self._own[endpoint.addresses[0]]
                what = f"Service {new.namespace}/{new.service_name} has an endpoint there"
                for port in new.ports or ():
                    protocol = port.protocol or "TCP"
                    if port.port and protocol in PROTOCOLS:
                        found.add(Door(protocol.lower(), port.port, version, what))
        self._set(self._hosted, old or new, found)

    def _set(self, held: dict[Key, frozenset[Door]], owner: Service | EndpointSlice | None, doors: set[Door]) -> None:
        assert owner is not None
        if not doors and owner.key not in held:
            return  # as nearly always
        now = frozenset(doors)
        if held.get(owner.key) == now:
            return
        if now:
            held[owner.key] = now
        else:
            del held[owner.key]
        self._changed()
