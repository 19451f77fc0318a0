"""How many endpoints of a Service get connections, and why it doesn't answer, for `kubesvc status`. Pure.

    no pods ─► pods without an address ─► none ready ─► a port that none has ─► a load balancer that waits
The first of these that holds is what its user has to mend first; only the last may come beside another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kubesvc.api.core import Service
from kubesvc.api.discovery import Endpoint, EndpointSlice
from kubesvc.api.endpoints import (
    declared_ports,
    is_headless,
    pod_is_finished,
    resolve_target_port,
    unnamed_target_ports,
)
from kubesvc.api.pods import Pod
from kubesvc.loadbalancer.overview import waits


class Serving(msgspec.Struct, frozen=True):
    """`ready` is READY/ALL of its endpoints, as kubectl writes it, empty for an alias; `wrong`: a sentence a fault;
    `doubtful`: what is likely to be one, and needn't be."""

    ready: str = ""
    wrong: list[str] = []
    doubtful: list[str] = []


def serving(service: Service, slices: Iterable[EndpointSlice], pods: Mapping[tuple[str, str], Pod]) -> Serving:
    """`slices` are the Service's own; `pods`, by namespace and name, may be any: its selector is asked."""
    if service.spec.type == "ExternalName":
        return Serving()
    slices = list(slices)
    endpoints: dict[str, Endpoint] = {}  # whose -> one of its endpoints, a ready one if there is one
    for endpoint in (e for found in slices for e in found.endpoints):
        whose = endpoint.target_ref.uid if endpoint.target_ref and endpoint.target_ref.uid else endpoint.addresses[0]
        if whose not in endpoints or endpoint.ready:
            endpoints[whose] = endpoint
    ready = sum(endpoint.ready for endpoint in endpoints.values())
    if not endpoints:
        wrong = [_nobody(service, _selected(service, pods))]
    elif not ready:
        wrong = [_not_ready(service, list(endpoints.values()))]
    else:
        wrong = _ports(service, slices, pods)
    if service.spec.type == "LoadBalancer" and (waiting := waits(service)):
        wrong.append(waiting)
    doubtful = _undeclared(service, endpoints.values(), pods) if ready else []
    return Serving(f"{ready}/{len(endpoints)}", wrong, doubtful)


def _selected(service: Service, pods: Mapping[tuple[str, str], Pod]) -> list[Pod]:
    wanted = (service.spec.selector or {}).items()
    return [
        p for p in pods.values() if wanted and p.namespace == service.namespace and wanted <= p.metadata.labels.items()
    ]


def _nobody(service: Service, pods: list[Pod]) -> str:
    if not service.spec.selector:
        return "it has no selector, and no EndpointSlice with endpoints names it in kubernetes.io/service-name"
    if not pods:
        labels = ",".join(f"{key}={value}" for key, value in sorted(service.spec.selector.items()))
        return f"its selector means no pod: none of namespace {service.namespace} has the labels {labels}"
    if all(pod_is_finished(pod) for pod in pods):
        return f"all {len(pods)} pods that its selector means have ended, such as {pods[0].name}"
    waiting = next(pod for pod in pods if not pod_is_finished(pod))
    return f"no pod that its selector means has an address yet: {_look(service, waiting.name)}"


def _not_ready(service: Service, endpoints: list[Endpoint]) -> str:
    one = next((e.target_ref.name for e in endpoints if e.target_ref is not None and e.target_ref.kind == "Pod"), "")
    return f"none of its {len(endpoints)} endpoints is ready" + (f": {_look(service, one)}" if one else "")


def _look(service: Service, pod: str) -> str:
    return f"`kubectl -n {service.namespace} describe pod {pod}` says why"


def _ports(service: Service, slices: list[EndpointSlice], pods: Mapping[tuple[str, str], Pod]) -> list[str]:
    there = {port.name or "" for found in slices if found.endpoints for port in found.ports or ()}
    missing = [port for port in service.spec.ports if port.name not in there]
    if not missing:
        return []
    if service.spec.selector:
        return unnamed_target_ports(service, _selected(service, pods))
    named = ", ".join(repr(name) for name in sorted(there)) or "none"
    return [
        f"port {port.port}: its EndpointSlices have no port named {port.name!r} as the Service's is; they have {named}"
        for port in missing
    ]


def _undeclared(service: Service, endpoints: Iterable[Endpoint], pods: Mapping[tuple[str, str], Pod]) -> list[str]:
    """Numbers that a pod doesn't declare though it declares others: allowed, and often a forgotten targetPort."""
    references = (e.target_ref for e in endpoints if e.ready and e.target_ref is not None)
    pod = next((pods[r.namespace, r.name] for r in references if (r.namespace, r.name) in pods), None)
    if pod is None or is_headless(service):
        return []
    declared = [(port.container_port, port.protocol) for port in declared_ports(pod)]
    found = []
    for port in service.spec.ports:
        number = resolve_target_port(port, pod)
        of_protocol = sorted(n for n, protocol in declared if protocol == port.protocol)
        if number is not None and of_protocol and number not in of_protocol:
            have = ", ".join(map(str, of_protocol))
            found.append(
                f"port {port.port} leads to {number}/{port.protocol} of its pods, which declare {have}: "
                "if it is refused, correct targetPort"
            )
    return found
