"""Why a Service can't be stored: its type, ports, policies and status. Addresses are in `service_addresses`.

Source: pkg/apis/core/validation/validation.go, ValidateService and ValidateServiceUpdate. Allocation comes after
validation here, so a number outside the node port range is refused here rather than by the allocator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import metadata
from kubesvc.apiserver.admission import service_addresses as addresses
from kubesvc.apiserver.admission import service_spec as ask
from kubesvc.apiserver.admission.causes import duplicate, forbidden, invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context

TYPES = (ask.CLUSTER_IP, ask.EXTERNAL_NAME, ask.LOAD_BALANCER, ask.NODE_PORT)
PROTOCOLS = ("SCTP", "TCP", "UDP")
POLICIES = ("Cluster", "Local")
DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
DAY = 86400  # seconds
_KUBELET_PORT = 10250
_PORT_TAKEN = "provided port is already allocated"

_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_LB_ONLY = "may only be used when `type` is 'LoadBalancer'"
_LB_STATUS_ONLY = "may only be used when `spec.type` is 'LoadBalancer'"


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = ask.spec_of(new)
    before = ask.spec_of(old) if old is not None else None
    if context.subresource == "status":
        return list(_status(new.get("status") or {}, (old or {}).get("status") or {}, spec))
    if causes := addresses.unsettled(spec, before, context.cluster):
        return causes
    causes = [
        *_type(spec),
        *_ports(spec),
        *metadata.validate_labels(spec.get("selector"), "spec.selector"),
        *_affinity(spec),
        *addresses.validate(spec, before),
        *_node_ports(spec, before, context),
        *_source_ranges(new, old or {}),
        *_load_balancer(spec),
        *_traffic(spec),
    ]
    if before is not None:
        causes += _update(spec, before)
    return causes


def _type(spec: JSON) -> Iterator[Cause]:
    kind = ask.type_of(spec)
    if kind not in TYPES:
        yield not_supported("spec.type", kind, TYPES)
    if not ask.ports(spec) and not ask.is_headless(spec) and kind != ask.EXTERNAL_NAME:
        yield required("spec.ports")
    if kind == ask.LOAD_BALANCER:
        for index, port in enumerate(ask.ports(spec)):
            if port.get("port") == _KUBELET_PORT:
                why = f"may not expose port {_KUBELET_PORT} externally since it is used by kubelet"
                yield invalid(f"spec.ports[{index}]", _KUBELET_PORT, why)
    if kind in (ask.LOAD_BALANCER, ask.NODE_PORT) and ask.is_headless(spec):
        yield invalid("spec.clusterIPs[0]", ask.NONE, f"may not be set to 'None' for {kind} services")
    if kind != ask.EXTERNAL_NAME:
        return
    for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(name):
            yield forbidden(f"spec.{name}", "may not be set for ExternalName services")
    alias = (spec.get("externalName") or "").removesuffix(".")
    if not alias:
        yield required("spec.externalName")
    else:
        yield from (invalid("spec.externalName", alias, why) for why in names.subdomain(alias))


def _ports(spec: JSON) -> Iterator[Cause]:
    ports = ask.ports(spec)
    seen: set[str] = set()  # names
    pairs: set[tuple[Any, Any]] = set()  # (protocol, port)
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name and len(ports) > 1:
            yield required(f"{path}.name")
        elif name:
            yield from (invalid(f"{path}.name", name, why) for why in names.label(name))
            if name in seen:
                yield duplicate(f"{path}.name", name)
            seen.add(name)
        number = port.get("port") or 0
        yield from (invalid(f"{path}.port", number, why) for why in names.port_number(number))
        protocol = port.get("protocol") or ""
        if protocol not in PROTOCOLS:
            yield not_supported(f"{path}.protocol", protocol, PROTOCOLS)
        yield from _target_port(port.get("targetPort", 0), f"{path}.targetPort")
        if (application := port.get("appProtocol")) is not None:
            yield from (invalid(f"{path}.appProtocol", application, w) for w in names.qualified_name(application))
        if (protocol, number) in pairs:
            yield duplicate(path, _as_key(protocol, number))
        pairs.add((protocol, number))


def _as_key(protocol: str, port: int) -> JSON:
    """A port as upstream shows the pair that is there twice: its own struct, all other fields empty."""
    return {"Name": "", "Protocol": protocol, "AppProtocol": None, "Port": port, "TargetPort": 0, "NodePort": 0}


def _target_port(target: int | str, path: str) -> Iterator[Cause]:
    problems = names.port_number(target) if isinstance(target, int) else names.port_name(target)
    yield from (invalid(path, target, why) for why in problems)


def _affinity(spec: JSON) -> Iterator[Cause]:
    affinity = spec.get("sessionAffinity") or "None"
    config = spec.get("sessionAffinityConfig")
    path = "spec.sessionAffinityConfig"
    if affinity not in ("ClientIP", "None"):
        yield not_supported("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    elif affinity == "None" and config is not None:
        yield forbidden(path, "must not be set when session affinity is None")
    elif affinity == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds") or 0
        if not 0 < seconds <= DAY:
            yield invalid(f"{path}.clientIP.timeoutSeconds", seconds, f"must be greater than 0 and less than {DAY}")


def _node_ports(spec: JSON, before: JSON | None, context: Context) -> Iterator[Cause]:
    kind = ask.type_of(spec)
    first, last = context.cluster.node_port_range
    held = set(ask.held_node_ports(before)) if before is not None else set()
    why = f"provided port is not in the valid range. The range of valid ports is {first}-{last}"
    pairs: set[tuple[str, int]] = set()  # (protocol, node port)
    first_of: dict[int, Any] = {}  # node port -> the port that asks for it first
    for index, port in enumerate(ask.ports(spec)):
        number = port.get("nodePort") or 0
        path = f"spec.ports[{index}].nodePort"
        if not number:
            continue
        if kind == ask.CLUSTER_IP:
            yield forbidden(path, "may not be used when `type` is 'ClusterIP'")
        elif kind != ask.EXTERNAL_NAME and number not in held and not first <= number <= last:
            yield invalid(path, number, why)
        elif number in context.cluster.own_ports and number not in held:
            yield invalid(path, number, _PORT_TAKEN)
        pair = (port.get("protocol") or "", number)
        if pair in pairs:
            yield duplicate(path, number)
        elif before is None and first_of.setdefault(number, port.get("port")) != port.get("port"):
            yield invalid(path, number, _PORT_TAKEN)  # only protocols of one port share a number
        pairs.add(pair)
    health = spec.get("healthCheckNodePort") or 0
    if health and ask.needs_health_check(spec) and health not in held and not first <= health <= last:
        yield invalid("spec.healthCheckNodePort", health, why)
    elif (
        health
        and ask.needs_health_check(spec)
        and health in {*ask.node_ports(spec), *(context.cluster.own_ports - held)}
    ):
        yield invalid("spec.healthCheckNodePort", health, _PORT_TAKEN)


def _source_ranges(new: JSON, old: JSON) -> Iterator[Cause]:
    """Of ranges that are stored already any spelling is tolerated."""
    spec = ask.spec_of(new)
    kind = ask.type_of(spec)
    annotations = (new.get("metadata") or {}).get("annotations") or {}
    if ranges := spec.get("loadBalancerSourceRanges"):
        path = "spec.LoadBalancerSourceRanges"  # spelled so upstream
        stored = set(ask.spec_of(old).get("loadBalancerSourceRanges") or ())
        if kind != ask.LOAD_BALANCER:
            yield forbidden(path, _LB_ONLY)
        for index, text in enumerate(ranges):
            if text not in stored:
                yield from (invalid(f"{path}[{index}]", text.strip(), why) for why in names.network(text.strip()))
    elif _RANGES in annotations:
        path = f"metadata.annotations[{_RANGES}]"
        if kind != ask.LOAD_BALANCER:
            yield forbidden(path, _LB_ONLY)
        if annotations[_RANGES] != ((old.get("metadata") or {}).get("annotations") or {}).get(_RANGES):
            for text in filter(None, (part.strip() for part in annotations[_RANGES].split(","))):
                yield from (invalid(path, text, why) for why in names.network(text))


def _load_balancer(spec: JSON) -> Iterator[Cause]:
    if ask.type_of(spec) != ask.LOAD_BALANCER:
        if spec.get("allocateLoadBalancerNodePorts") is not None:
            yield forbidden("spec.allocateLoadBalancerNodePorts", _LB_ONLY)
        if spec.get("loadBalancerClass") is not None:
            yield forbidden("spec.loadBalancerClass", _LB_ONLY)
    elif (name := spec.get("loadBalancerClass")) is not None:
        yield from (invalid("spec.loadBalancerClass", name, why) for why in names.qualified_name(name))


def _traffic(spec: JSON) -> Iterator[Cause]:
    external = spec.get("externalTrafficPolicy") or ""
    path = "spec.externalTrafficPolicy"
    if external and not ask.externally_accessible(spec):
        yield invalid(path, external, "may only be set for externally-accessible services")
    elif external and external not in POLICIES:
        yield not_supported(path, external, POLICIES)
    health = spec.get("healthCheckNodePort") or 0
    if health and not ask.needs_health_check(spec):
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield invalid("spec.healthCheckNodePort", health, why)
    internal = spec.get("internalTrafficPolicy")
    if internal is not None and internal not in POLICIES:
        yield not_supported("spec.internalTrafficPolicy", internal, POLICIES)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in DISTRIBUTIONS:
        yield not_supported("spec.trafficDistribution", distribution, DISTRIBUTIONS)


def _update(spec: JSON, before: JSON) -> Iterator[Cause]:
    if ask.type_of(spec) == ask.type_of(before) == ask.LOAD_BALANCER:
        name = spec.get("loadBalancerClass")
        if name != before.get("loadBalancerClass"):
            yield invalid("spec.loadBalancerClass", name, "may not change once set")
    keeps_health_check = ask.needs_health_check(spec) and ask.needs_health_check(before)
    if keeps_health_check and (spec.get("healthCheckNodePort") or 0) != (before.get("healthCheckNodePort") or 0):
        yield forbidden("spec.healthCheckNodePort", "field is immutable")


def _status(status: JSON, before: JSON, spec: JSON) -> Iterator[Cause]:
    path = "status.loadBalancer.ingress"
    stored = {i.get("ip") for i in (before.get("loadBalancer") or {}).get("ingress") or ()}  # tolerated as they are
    found = (status.get("loadBalancer") or {}).get("ingress") or []
    if found and ask.type_of(spec) != ask.LOAD_BALANCER:
        yield forbidden(path, _LB_STATUS_ONLY)
        return
    for index, ingress in enumerate(found):
        here = f"{path}[{index}]"
        ip, mode, hostname = ingress.get("ip") or "", ingress.get("ipMode"), ingress.get("hostname") or ""
        if ip and ip not in stored:
            yield from (invalid(f"{here}.ip", ip, why) for why in names.address(ip))
        if ip and mode is None:
            yield required(f"{here}.ipMode", "must be specified when `ip` is set")
        elif mode is not None and not ip:
            yield forbidden(f"{here}.ipMode", "may not be specified when `ip` is not set")
        elif mode is not None and mode not in ("Proxy", "VIP"):
            yield not_supported(f"{here}.ipMode", mode, ("Proxy", "VIP"))
        if hostname:
            yield from (invalid(f"{here}.hostname", hostname, why) for why in names.subdomain(hostname))
            if names.parse_address(hostname) is not None:
                yield invalid(f"{here}.hostname", hostname, "must be a DNS name, not an IP address")
