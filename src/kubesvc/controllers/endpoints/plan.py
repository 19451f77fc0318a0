"""What a Service's Endpoints object shall say: subsets of addresses that share ports, ready or not.

Follows the Endpoints controller and its RepackSubsets: the primary address family alone, no terminating pods unless
the Service publishes what isn't ready; beyond 1,000 addresses the object is truncated, those not ready first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kubesvc.api.core import EndpointAddress, EndpointPort, Endpoints, EndpointSubset, Node, Pod, Service
from kubesvc.api.discovery import Endpoint
from kubesvc.api.endpoints import is_headless
from kubesvc.api.labels import ENDPOINTS_CONTROLLER, ENDPOINTS_MANAGED_BY, HEADLESS, LAST_CHANGE_TRIGGER_TIME
from kubesvc.api.meta import JSON
from kubesvc.controllers.endpointslice.members import Ports, address_types, members

MOST = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"


def subsets(service: Service, pods: Iterable[Pod], nodes: Mapping[str, Node]) -> tuple[list[EndpointSubset], bool]:
    """The subsets, and whether some addresses had to be left out."""
    primary = address_types(service)[0]
    by_ports: dict[Ports, tuple[list[Endpoint], list[Endpoint]]] = {}  # ports -> (ready, not ready)
    for (type_, ports), endpoints in members(service, pods, nodes).groups.items():
        if type_ != primary:
            continue
        for endpoint in endpoints:
            if endpoint.terminating and not service.spec.publish_not_ready_addresses:
                continue
            by_ports.setdefault(ports, ([], []))[0 if endpoint.ready else 1].append(endpoint)
    ready = sum(len(r) for r, _ in by_ports.values())
    total = ready + sum(len(n) for _, n in by_ports.values())
    room, room_not_ready = min(ready, MOST), max(0, min(total - ready, MOST - ready))
    packed = []
    for ports, (serving, waiting) in sorted(by_ports.items(), key=lambda item: str(item[0])):
        serving, waiting = serving[:room], waiting[:room_not_ready]
        room, room_not_ready = room - len(serving), room_not_ready - len(waiting)
        if serving or waiting:
            packed.append(
                EndpointSubset(
                    addresses=_addresses(serving),
                    not_ready_addresses=_addresses(waiting),
                    ports=[EndpointPort(number, name, protocol, app) for name, protocol, number, app in ports],
                )
            )
    return packed, total > MOST


def _addresses(endpoints: list[Endpoint]) -> list[EndpointAddress]:
    shown = [
        EndpointAddress(ip=e.addresses[0], hostname=e.hostname or "", node_name=e.node_name, target_ref=e.target_ref)
        for e in endpoints
    ]
    return sorted(shown, key=lambda a: a.ip)


def _labels(service: Service) -> dict[str, str]:
    labels = {k: v for k, v in service.metadata.labels.items() if k != HEADLESS}
    labels[ENDPOINTS_MANAGED_BY] = ENDPOINTS_CONTROLLER
    return labels | ({HEADLESS: ""} if is_headless(service) else {})


def plan(
    service: Service, pods: Iterable[Pod], nodes: Mapping[str, Node], found: Endpoints | None, trigger: str | None
) -> JSON | None:
    """The object to create when `found` is None, else the patch that puts it right; None when it is right."""
    wanted, truncated = subsets(service, pods, nodes)
    labels = _labels(service)
    over = "truncated" if truncated else None
    if found is not None:
        same = found.subsets == wanted and found.metadata.labels == labels
        if same and found.metadata.annotations.get(OVER_CAPACITY) == over:
            return None
    annotations = {LAST_CHANGE_TRIGGER_TIME: trigger, OVER_CAPACITY: over}
    body: JSON = {"subsets": [_subset_tree(s) for s in wanted]}
    if found is None:
        meta: JSON = {"name": service.name, "namespace": service.namespace, "labels": labels}
        if given := {k: v for k, v in annotations.items() if v}:
            meta["annotations"] = given
    else:
        stale = {k: None for k in found.metadata.labels if k not in labels}
        meta = {
            "labels": labels | stale,
            "annotations": annotations,
            "resourceVersion": found.metadata.resource_version,
        }
    return {"metadata": meta, **body}


def _subset_tree(subset: EndpointSubset) -> JSON:
    tree: JSON = msgspec.to_builtins(subset)
    tree["ports"] = [{"protocol": p.protocol, **msgspec.to_builtins(p)} for p in subset.ports]
    return tree
