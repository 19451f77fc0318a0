"""Which slices say the same as a hand-written Endpoints object: one for each (subset's ports, address family).

Follows k8s.io/kubernetes/pkg/controller/endpointslicemirroring: only `ready` is set of the conditions; of a subset at
most 1,000 addresses are mirrored, ready ones first, and what isn't an address is left out; subsets of the same ports
share slices. Labels and annotations come along, but for those that speak of the Endpoints object itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import msgspec

from kubesvc.api.core import EndpointAddress, Endpoints, EndpointSubset, Service
from kubesvc.api.discovery import Endpoint, EndpointConditions, EndpointSlice, SlicePort
from kubesvc.api.labels import (
    LAST_APPLIED,
    LAST_CHANGE_TRIGGER_TIME,
    LEADER,
    MIRRORING_CONTROLLER,
    SERVICE_NAME,
    SKIP_MIRROR,
    SLICE_MANAGED_BY,
)
from kubesvc.api.meta import JSON, Object
from kubesvc.api.registry import ENDPOINTS
from kubesvc.controllers.endpointslice.members import Group, port_key
from kubesvc.controllers.ownership import reference_to

MOST = 1000
TRUE = ("1", "t", "T", "TRUE", "true", "True")
NOT_COPIED = (LAST_CHANGE_TRIGGER_TIME, LAST_APPLIED)


class Plan(msgspec.Struct):
    """`create` and the second of each `update` are trees; `invalid` texts were left out, `skipped` counts these and
    those beyond the limit."""

    create: list[JSON] = []
    update: list[tuple[EndpointSlice, JSON]] = []
    delete: list[EndpointSlice] = []
    skipped: int = 0
    invalid: tuple[str, ...] = ()


def is_mirrored(service: Service | None, endpoints: Object | None) -> bool:
    """Whether `endpoints` are somebody's hand-written addresses of a Service that selects nothing."""
    if service is None or endpoints is None or service.spec.selector:
        return False
    meta = endpoints.metadata
    return meta.labels.get(SKIP_MIRROR, "") not in TRUE and LEADER not in meta.annotations


def is_mirror(found: EndpointSlice) -> bool:
    return found.metadata.labels.get(SLICE_MANAGED_BY) == MIRRORING_CONTROLLER


def groups(subsets: Iterable[EndpointSubset]) -> tuple[dict[Group, list[Endpoint]], int, tuple[str, ...]]:
    """(the endpoints of each address family and ports, how many addresses are left out, which of them are none)."""
    found: dict[Group, dict[str, Endpoint]] = {}
    invalid: list[str] = []
    skipped = 0
    for subset in subsets:
        ports = port_key(SlicePort(p.name, p.protocol, p.port, p.app_protocol) for p in subset.ports)
        added = 0
        listed = [(a, True) for a in subset.addresses] + [(a, False) for a in subset.not_ready_addresses]
        for address, ready in listed:
            version = _version(address.ip)
            if added == MOST:
                break
            if not version:
                invalid.append(address.ip)
                continue
            added += 1
            known = found.setdefault((f"IPv{version}", ports), {})
            known.setdefault(address.ip, _endpoint(address, ready))
        skipped += len(listed) - added
    return {group: list(endpoints.values()) for group, endpoints in found.items()}, skipped, tuple(invalid)


def _version(text: str) -> int:
    try:
        return ip_address(text).version
    except ValueError:
        return 0


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=[address.ip],
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


def plan(endpoints: Endpoints, slices: Sequence[EndpointSlice]) -> Plan:
    """`slices` are those of the Service, whoever manages them."""
    wanted, skipped, invalid = groups(endpoints.subsets)
    decided = Plan(skipped=skipped, invalid=invalid)
    labels, annotations = _labels(endpoints), _annotations(endpoints)
    existing: dict[Group, list[EndpointSlice]] = {}
    for found in sorted(slices, key=lambda s: s.name):
        if is_mirror(found) and found.metadata.deletion_timestamp is None:
            existing.setdefault((found.address_type, port_key(found.ports or [])), []).append(found)
    for group, there in existing.items():
        owner = endpoints.metadata.uid
        ours = [s for s in there if any(r.uid == owner for r in s.metadata.owner_references)]
        keep = ours[0] if ours and group in wanted else None
        decided.delete += [s for s in there if s is not keep]
        if keep is None:
            continue
        shown = wanted.pop(group)
        same = keep.endpoints == shown and keep.metadata.labels == labels
        if not same or keep.metadata.annotations != annotations:
            decided.update.append((keep, _patch(keep, shown, labels, annotations)))
    for (type_, ports), shown in wanted.items():
        meta: JSON = {
            "generateName": f"{endpoints.name}-",
            "namespace": endpoints.namespace,
            "labels": labels,
            "ownerReferences": [reference_to(ENDPOINTS, endpoints)],
        }
        if annotations:
            meta["annotations"] = annotations
        body = {"addressType": type_, "endpoints": _trees(shown), "ports": [_port(*p) for p in ports]}
        decided.create.append({"metadata": meta, **body})
    return decided


def _labels(endpoints: Endpoints) -> dict[str, str]:
    own = {SERVICE_NAME: endpoints.name, SLICE_MANAGED_BY: MIRRORING_CONTROLLER}
    return endpoints.metadata.labels | own


def _annotations(endpoints: Endpoints) -> dict[str, str]:
    return {k: v for k, v in endpoints.metadata.annotations.items() if k not in NOT_COPIED}


def _patch(found: EndpointSlice, shown: list[Endpoint], labels: dict[str, str], annotations: dict[str, str]) -> JSON:
    meta = found.metadata
    return {
        "metadata": {
            "resourceVersion": meta.resource_version,
            "labels": {k: None for k in meta.labels if k not in labels} | labels,
            "annotations": {k: None for k in meta.annotations if k not in annotations} | annotations,
        },
        "endpoints": _trees(shown),
    }


def _trees(endpoints: Iterable[Endpoint]) -> list[JSON]:
    return [msgspec.to_builtins(e) for e in endpoints]


def _port(name: str, protocol: str, number: int, app_protocol: str | None) -> JSON:
    port: JSON = {"name": name, "protocol": protocol, "port": number}
    return port | ({"appProtocol": app_protocol} if app_protocol else {})
