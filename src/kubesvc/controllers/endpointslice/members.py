"""Which endpoints a Service has: pods in, endpoints out, each with the ports it answers on.

Follows the EndpointSlice controller (k8s.io/endpointslice): a pod that is finished or has no address is no endpoint; a
terminating one is, so that a proxy may drain it; a named targetPort is looked up in each pod, so that pods of two
versions with two numbers land in two groups.

    (address type, ports) ──► endpoints, in the order of the pods' names      one group is packed into its own slices
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

import msgspec

from kubesvc.api.balance import Invalid, balance_of, weight_of
from kubesvc.api.core import ObjectReference, Service
from kubesvc.api.discovery import Endpoint, EndpointConditions, EndpointHints, ForNode, ForZone, SlicePort
from kubesvc.api.endpoints import endpoint_conditions, is_headless, pod_is_finished, resolve_target_port
from kubesvc.api.labels import ZONE
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod

Port = tuple[str, str, int, str | None]  # (name, protocol, number, appProtocol)
Ports = tuple[Port, ...]
Group = tuple[str, Ports]  # (address type, ports)


class Members(msgspec.Struct, frozen=True):
    """`groups` maps (address type, ports) -> endpoints. `missing_nodes` names the nodes not known yet whose pods were
    left out for now. `weights` maps addresses of pods that don't weigh 1, where the Service counts weights, and
    `complaints` are weights that are none."""

    groups: dict[Group, list[Endpoint]]
    missing_nodes: frozenset[str] = frozenset()
    weights: dict[str, int] = {}
    complaints: list[tuple[Pod, str]] = []


def address_types(service: Service) -> list[str]:
    """IPv4, IPv6 or both. A headless Service that names no family has pods of either."""
    if service.spec.ip_families:
        return list(service.spec.ip_families)
    if service.spec.cluster_ip in ("", "None"):
        return ["IPv4", "IPv6"] if is_headless(service) else ["IPv4"]
    return [f"IPv{ip_address(service.spec.cluster_ip).version}"]


def address_type(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def port_key(ports: Iterable[SlicePort]) -> Ports:
    """A slice's ports as they are compared: in no order."""
    return tuple(
        sorted(
            ((p.name or "", p.protocol or "TCP", p.port or 0, p.app_protocol) for p in ports),
            key=lambda p: (p[0], p[1], p[2], p[3] or ""),
        )
    )


def ports_of(service: Service, pod: Pod) -> Ports:
    """The ports at which `pod` answers for `service`; those it doesn't name are left out."""
    ports = []
    for port in service.spec.ports:
        number = resolve_target_port(port, pod)
        if number is not None:
            ports.append(SlicePort(port.name, port.protocol, number, port.app_protocol))
    return port_key(ports)


def addresses_of(pod: Pod) -> list[str]:
    return [a.ip for a in pod.status.pod_ips] or ([pod.status.pod_ip] if pod.status.pod_ip else [])


def members(service: Service, pods: Iterable[Pod], nodes: Mapping[str, Node] | None) -> Members:
    """The endpoints of `service` among `pods`, which its selector has already chosen. Without `nodes` a pod's node is
    neither asked for nor its zone told, as Endpoints have it."""
    types = address_types(service)
    weighed = _counts_weights(service)
    weights: dict[str, int] = {}
    complaints: list[tuple[Pod, str]] = []
    groups: dict[Group, list[Endpoint]] = {}
    missing: set[str] = set()
    for pod in pods:
        addresses = addresses_of(pod)
        if pod_is_finished(pod) or not addresses:
            continue
        node = nodes.get(pod.spec.node_name) if nodes is not None else None
        if nodes is not None and node is None and pod.spec.node_name and not service.spec.publish_not_ready_addresses:
            missing.add(pod.spec.node_name)
            continue
        if weighed:
            _weigh(pod, addresses, weights, complaints)
        ports = ports_of(service, pod)
        for address in addresses:
            if address_type(address) in types:
                groups.setdefault((address_type(address), ports), []).append(_endpoint(service, pod, node, address))
    return Members(groups, frozenset(missing), weights, complaints)


def _counts_weights(service: Service) -> bool:
    try:
        return balance_of(service) is not None
    except Invalid:
        return False


def _weigh(pod: Pod, addresses: list[str], weights: dict[str, int], complaints: list[tuple[Pod, str]]) -> None:
    try:
        weight = weight_of(pod)
    except Invalid as error:
        complaints.append((pod, f"pod {pod.namespace}/{pod.name}: {error}"))
        return
    if weight != 1:
        weights.update(dict.fromkeys(addresses, weight))


def _endpoint(service: Service, pod: Pod, node: Node | None, address: str) -> Endpoint:
    ready, serving, terminating = endpoint_conditions(service, pod)
    zone = node.metadata.labels.get(ZONE) if node else None
    named = pod.spec.hostname and pod.spec.subdomain == service.name and pod.namespace == service.namespace
    return Endpoint(
        addresses=[address],
        conditions=EndpointConditions(ready, serving, terminating),
        hostname=pod.spec.hostname if named else None,
        node_name=pod.spec.node_name or None,
        zone=zone or None,
        hints=_hints(service, ready, zone or "", pod.spec.node_name),
        target_ref=ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.metadata.uid),
    )


def _hints(service: Service, ready: bool, zone: str, node: str) -> EndpointHints | None:
    """trafficDistribution: a ready endpoint is for its own zone, and for PreferSameNode for its own node too."""
    wanted = service.spec.traffic_distribution
    if not ready or wanted not in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return None
    for_nodes = [ForNode(node)] if wanted == "PreferSameNode" and node else []
    for_zones = [ForZone(zone)] if zone else []
    return EndpointHints(for_zones=for_zones, for_nodes=for_nodes) if for_zones or for_nodes else None
