"""Where a proxy request goes: which node's agent, and which address, port and scheme from there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import BadRequest, ServiceUnavailable
from kubesvc.api.pods import Pod


class Wanted(NamedTuple):
    """NAME, NAME:PORT or SCHEME:NAME:PORT as it stands in a path; a port is a number, a name or nothing."""

    scheme: str
    name: str
    port: str


class Destination(NamedTuple):
    scheme: str
    address: str
    port: int
    node: str  # whose agent gets there; "": any

    @property
    def path(self) -> str:
        """The beginning of the agent's path."""
        return f"/proxy/{self.scheme}/{self.address}/{self.port}"


def parse(kind: str, text: str) -> Wanted:
    """`kind` is for the message. Raises BadRequest."""
    parts = text.split(":")
    found = Wanted("http", parts[0], "") if len(parts) == 1 else Wanted("http", parts[0], parts[-1])
    if len(parts) == 3:
        found = Wanted(parts[0] or "http", parts[1], parts[2])
    if len(parts) > 3 or not found.name or found.scheme not in ("http", "https"):
        raise BadRequest(f'invalid {kind} request "{text}"')
    return found


def of_pod(wanted: Wanted, pod: Pod) -> Destination:
    """Without a port, the first one any container declares, else the scheme's own. Raises BadRequest."""
    ports = [port for container in pod.spec.containers for port in container.ports]
    number = 443 if wanted.scheme == "https" else 80
    if not wanted.port and ports:
        number = ports[0].container_port
    elif wanted.port.isdigit():
        number = int(wanted.port)
    elif wanted.port:
        named = next((port.container_port for port in ports if port.name == wanted.port), None)
        if named is None:
            raise BadRequest(f'pod {pod.name} has no port named "{wanted.port}"')
        number = named
    if not pod.status.pod_ip:
        raise BadRequest(f"pod {pod.name} does not have an address yet")
    return _allowed(Destination(wanted.scheme, pod.status.pod_ip, number, pod.spec.node_name))


def of_service(
    wanted: Wanted, service: Service, slices: Iterable[EndpointSlice], choose: Callable[[int], int]
) -> Destination:
    """As `endpoint`, of those that may be proxied to. Raises BadRequest, too."""
    return _allowed(endpoint(wanted, service, slices, choose))


def endpoint(
    wanted: Wanted, service: Service, slices: Iterable[EndpointSlice], choose: Callable[[int], int]
) -> Destination:
    """A ready endpoint of the wanted port, `choose(n)` of n. Raises ServiceUnavailable."""
    name = wanted.port
    if name.isdigit():
        port = next((port for port in service.spec.ports if port.port == int(name)), None)
        if port is None:
            raise ServiceUnavailable(f'no service port {name} found for service "{service.name}"')
        name = port.name
    found: Sequence[tuple[str, int, str]] = [
        (endpoint.addresses[0], port.port, endpoint.node_name or "")
        for slice_ in slices
        if slice_.address_type != "FQDN"
        for port in slice_.ports or ()
        if (port.name or "") == name and port.port and (port.protocol or "TCP") == "TCP"
        for endpoint in slice_.endpoints
        if endpoint.ready and endpoint.addresses
    ]
    if not found:
        shown = f"{wanted.name}:{wanted.port}" if wanted.port else wanted.name
        raise ServiceUnavailable(f'no endpoints available for service "{shown}"')
    return Destination(wanted.scheme, *found[choose(len(found))])


def _allowed(destination: Destination) -> Destination:
    """As upstream: nothing that lives on the agent's own machine alone. Raises BadRequest."""
    address = ip_address(destination.address)
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise BadRequest("address not allowed")
    return destination
