"""What a Service's Endpoints object shall say: subsets of addresses that share ports, ready or not.

Follows the Endpoints controller and its RepackSubsets: the primary address family alone, no terminating pods unless
the Service publishes what isn't ready; beyond 1,000 addresses the object is truncated, those not ready first and each
subset in proportion to its size. Nodes are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

import msgspec

from kubesvc.api.core import EndpointAddress, EndpointPort, EndpointSubset, Service
from kubesvc.api.discovery import Endpoint
from kubesvc.api.endpoints import is_headless
from kubesvc.api.labels import (
    ENDPOINTS_CONTROLLER,
    ENDPOINTS_MANAGED_BY,
    HEADLESS,
    LAST_CHANGE_TRIGGER_TIME,
    OVER_CAPACITY,
)
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.controllers.endpointslice.members import Ports, address_types, members
from kubesvc.controllers.slim import Shown, digest

MOST = 1000


def subsets(service: Service, pods: Iterable[Pod]) -> tuple[list[EndpointSubset], bool]:
    """The subsets, and whether some addresses had to be left out."""
    primary = address_types(service)[0]
    by_ports: dict[Ports, tuple[list[EndpointAddress], list[EndpointAddress]]] = {}  # ports -> (ready, not ready)
    for (type_, ports), endpoints in members(service, pods, None).groups.items():
        if type_ != primary or (not ports and service.spec.ports):  # a pod that has none of the named ports
            continue
        for endpoint in endpoints:
            if endpoint.terminating and not service.spec.publish_not_ready_addresses:
                continue
            by_ports.setdefault(ports, ([], []))[0 if endpoint.ready else 1].append(_address(endpoint))
    packed = sorted(by_ports.items(), key=lambda item: str(item[0]))
    for _, addresses in packed:
        for some in addresses:
            some.sort(key=lambda a: (a.ip, a.target_ref.uid if a.target_ref else ""))
    truncated = _truncate([addresses for _, addresses in packed])
    return [
        EndpointSubset(
            addresses=ready,
            not_ready_addresses=waiting,
            ports=[EndpointPort(number, name, protocol, app) for name, protocol, number, app in ports],
        )
        for ports, (ready, waiting) in packed
        if ready or waiting
    ], truncated


def _truncate(groups: list[tuple[list[EndpointAddress], list[EndpointAddress]]]) -> bool:
    """Cut the (ready, not ready) addresses of each subset, in place, to MOST in all; whether that was needed."""
    ready, waiting = (sum(len(group[which]) for group in groups) for which in (0, 1))
    if ready + waiting <= MOST:
        return False
    which, room, total = (0, MOST, ready) if ready > MOST else (1, MOST - ready, waiting)
    left = room
    for group in groups:
        share = min(left, ceil(len(group[which]) / total * room))
        del group[which][share:]
        left -= share
        if which == 0:
            group[1].clear()
    return True


def _address(endpoint: Endpoint) -> EndpointAddress:
    return EndpointAddress(
        ip=endpoint.addresses[0],
        hostname=endpoint.hostname or "",
        node_name=endpoint.node_name,
        target_ref=endpoint.target_ref,
    )


def _labels(service: Service) -> dict[str, str]:
    labels = {k: v for k, v in service.metadata.labels.items() if k != HEADLESS}
    labels[ENDPOINTS_MANAGED_BY] = ENDPOINTS_CONTROLLER
    return labels | ({HEADLESS: ""} if is_headless(service) else {})


def plan(service: Service, pods: Iterable[Pod], found: Shown | None, trigger: str | None) -> JSON | None:
    """The object to create when `found` is None, else the patch that puts it right; None when it is right."""
    wanted, truncated = subsets(service, pods)
    labels = _labels(service)
    over = "truncated" if truncated else None
    if found is not None:
        same = found.digest == digest(wanted) and found.metadata.labels == labels
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
