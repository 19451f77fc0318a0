"""Which slices to create, change and delete so that they hold a Service's endpoints: few writes, no rebalancing.

For each (address type, ports), as k8s.io/endpointslice does:
  1. prune what is gone and refresh what changed in the slices there are; one left empty is to be deleted
  2. put new endpoints into slices that are written anyway, fullest first
  3. what remains goes whole into the tightest unchanged slice with room, else into new slices
  4. a slice to be deleted is rewritten instead of creating another of its address type
A family without endpoints has one placeholder slice without ports, so that a reader tells "none" from "not yet known".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kubesvc.api.balance import write_weights
from kubesvc.api.core import Service
from kubesvc.api.discovery import Endpoint, EndpointSlice
from kubesvc.api.endpoints import is_headless
from kubesvc.api.labels import (
    HEADLESS,
    LAST_CHANGE_TRIGGER_TIME,
    SERVICE_NAME,
    SLICE_CONTROLLER,
    SLICE_MANAGED_BY,
    WEIGHTS,
)
from kubesvc.api.meta import JSON
from kubesvc.api.registry import SERVICE
from kubesvc.controllers.endpointslice.members import Group, Ports, address_types, port_key
from kubesvc.controllers.ownership import reference_to


class Draft(msgspec.Struct):
    """What a slice shall be. `found` is the slice it replaces; None creates one."""

    address_type: str
    ports: Ports
    endpoints: list[Endpoint]
    found: EndpointSlice | None = None
    weights: str = ""
    """What the annotation `api.labels.WEIGHTS` shall say of its endpoints."""


class Plan(msgspec.Struct):
    create: list[Draft] = []
    update: list[Draft] = []
    delete: list[EndpointSlice] = []


def labels_for(service: Service) -> dict[str, str]:
    """The Service's own labels and those by which readers find its slices."""
    labels = {k: v for k, v in service.metadata.labels.items() if k != HEADLESS}
    labels[SERVICE_NAME] = service.name
    labels[SLICE_MANAGED_BY] = SLICE_CONTROLLER
    if is_headless(service):
        labels[HEADLESS] = ""
    return labels


def is_ours(found: EndpointSlice) -> bool:
    """Slices of other managers are left alone."""
    return found.metadata.labels.get(SLICE_MANAGED_BY) == SLICE_CONTROLLER


def plan(
    service: Service,
    groups: dict[Group, list[Endpoint]],
    slices: Iterable[EndpointSlice],
    *,
    most: int = 100,
    weights: Mapping[str, int] | None = None,
) -> Plan:
    """`groups` and `weights` as `members` gives them, `slices` all those of the Service, `most` endpoints in one
    slice."""
    whole = Plan()
    weights = weights or {}
    existing: dict[Group, list[EndpointSlice]] = {}
    for found in sorted(slices, key=lambda s: s.name):
        if not is_ours(found) or found.metadata.deletion_timestamp is not None:
            continue
        if not _owned_by(service, found):  # an earlier Service's of this name, or its owner was edited away
            whole.delete.append(found)
        else:
            existing.setdefault((found.address_type, port_key(found.ports or [])), []).append(found)
    for type_ in address_types(service):
        part = Plan()
        kept = 0
        for group in sorted({g for g in [*groups, *existing] if g[0] == type_}, key=str):
            wanted = groups.get(group, [])
            if not wanted and group[1] == () and not any(groups.get(g) for g in groups if g[0] == type_):
                kept += _keep_placeholder(service, existing.get(group, []), part)
            else:
                kept += _pack(service, group, wanted, existing.get(group, []), most, part, weights)
        if not kept and not part.create and not part.update:
            part.create.append(Draft(type_, (), []))
        _reuse(part)
        whole.create += part.create
        whole.update += part.update
        whole.delete += part.delete
    served = set(address_types(service))
    whole.delete += [s for group, found in existing.items() if group[0] not in served for s in found]
    for draft in (*whole.create, *whole.update):
        draft.weights = _weights_of(draft.endpoints, weights)
    if service.metadata.deletion_timestamp is not None:
        whole.create.clear()  # what is there is kept true; the garbage controller may be about to take it away
    return whole


def _weights_of(endpoints: Iterable[Endpoint], weights: Mapping[str, int]) -> str:
    addresses = (endpoint.addresses[0] for endpoint in endpoints) if weights else ()
    return write_weights({address: weights[address] for address in addresses if address in weights})


def _owned_by(service: Service, found: EndpointSlice) -> bool:
    return any(r.uid == service.metadata.uid for r in found.metadata.owner_references)


def _keep_placeholder(service: Service, found: list[EndpointSlice], plan: Plan) -> int:
    """Of slices without ports, when no endpoint is left: the first stays, emptied. Returns how many stay unwritten."""
    if not found:
        return 0
    first, *others = found
    plan.delete += others
    if first.endpoints or first.metadata.labels != labels_for(service):
        plan.update.append(Draft(first.address_type, (), [], first))
        return 0
    return 1


def _identity(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.addresses[0], endpoint.target_ref.uid if endpoint.target_ref else ""


def _pack(
    service: Service,
    group: Group,
    wanted: list[Endpoint],
    existing: list[EndpointSlice],
    most: int,
    plan: Plan,
    weights: Mapping[str, int],
) -> int:
    """Steps 1 to 3 for one group. Returns how many slices stay as they are."""
    type_, ports = group
    labels = labels_for(service)
    remaining = {_identity(e): e for e in wanted}
    unchanged: list[EndpointSlice] = []
    updated: list[Draft] = []
    for found in existing:
        kept = [e for old in found.endpoints if (e := remaining.pop(_identity(old), None)) is not None]
        if not kept:
            plan.delete.append(found)
        elif (
            kept != found.endpoints
            or found.metadata.labels != labels
            or len(kept) > most
            or found.metadata.annotations.get(WEIGHTS, "") != _weights_of(kept, weights)
        ):
            for extra in kept[most:]:  # the limit was lowered
                remaining[_identity(extra)] = extra
            updated.append(Draft(type_, ports, kept[:most], found))
        else:
            unchanged.append(found)
    left = list(remaining.values())
    for draft in sorted(updated, key=lambda d: -len(d.endpoints)):
        left = _fill(draft, left, most)
    while left:
        fits = [s for s in unchanged if len(s.endpoints) + len(left) <= most]
        if fits:
            tightest = max(fits, key=lambda s: len(s.endpoints))
            unchanged.remove(tightest)
            draft = Draft(type_, ports, list(tightest.endpoints), tightest)
            updated.append(draft)
        else:
            draft = Draft(type_, ports, [])
            plan.create.append(draft)
        left = _fill(draft, left, most)
    plan.update += updated
    return len(unchanged)


def _fill(draft: Draft, left: list[Endpoint], most: int) -> list[Endpoint]:
    room = max(0, most - len(draft.endpoints))
    draft.endpoints += left[:room]
    return left[room:]


def _reuse(plan: Plan) -> None:
    """Step 4."""
    while plan.create and plan.delete:
        draft = plan.create.pop()
        draft.found = plan.delete.pop(0)
        plan.update.append(draft)


def tree(service: Service, draft: Draft, trigger: str | None) -> JSON:
    """The slice of a draft, to be created, or with `found` the patch that makes it so. `trigger` is when what led to
    it happened, for those who measure how long programming takes; None removes the annotation."""
    wanted = labels_for(service)
    stale = {} if draft.found is None else {k: None for k in draft.found.metadata.labels if k not in wanted}
    meta: JSON = {"labels": wanted | stale}
    annotations = {LAST_CHANGE_TRIGGER_TIME: trigger}
    if draft.weights or (draft.found is not None and WEIGHTS in draft.found.metadata.annotations):
        annotations[WEIGHTS] = draft.weights or None
    if draft.found is not None:
        meta["resourceVersion"] = draft.found.metadata.resource_version
        meta["annotations"] = annotations
    else:
        meta["generateName"] = f"{service.name}-"
        meta["namespace"] = service.namespace
        meta["ownerReferences"] = [reference_to(SERVICE, service)]
        if found := {name: text for name, text in annotations.items() if text}:
            meta["annotations"] = found
    return {
        "metadata": meta,
        "addressType": draft.address_type,
        "endpoints": [msgspec.to_builtins(e) for e in draft.endpoints],
        "ports": [_port_tree(*port) for port in draft.ports],
    }


def _port_tree(name: str, protocol: str, number: int, app_protocol: str | None) -> JSON:
    port: JSON = {"name": name, "protocol": protocol, "port": number}
    return port | ({"appProtocol": app_protocol} if app_protocol else {})
