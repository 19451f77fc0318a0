"""Nodes, namespaces, configuration, events, leases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.apiserver.printing.columns import AGE, NAME, NONE, Column, Printer, at, name_of, wide
from kubesvc.apiserver.printing.duration import UNKNOWN, age, since

_ROLE_PREFIX, _ROLE = "node-role.kubernetes.io/", "kubernetes.io/role"


def _node(node: JSON, now: datetime) -> list[Any]:
    info = at(node, "status", "nodeInfo") or {}
    addresses = at(node, "status", "addresses") or ()

    def first(kind: str) -> str:
        return next((a["address"] for a in addresses if a.get("type") == kind), NONE)

    return [
        name_of(node),
        _node_status(node),
        _roles(node),
        age(node, now),
        info.get("kubeletVersion", ""),
        first("InternalIP"),
        first("ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _node_status(node: JSON) -> str:
    ready = next((c for c in at(node, "status", "conditions") or () if c.get("type") == "Ready"), None)
    status = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return status + (",SchedulingDisabled" if at(node, "spec", "unschedulable") else "")


def _roles(node: JSON) -> str:
    labels = node["metadata"].get("labels") or {}
    found = {k.removeprefix(_ROLE_PREFIX) for k in labels if k.startswith(_ROLE_PREFIX)}
    found |= {labels[_ROLE]} if labels.get(_ROLE) else set()
    return ",".join(sorted(filter(None, found))) or NONE


def _namespace(found: JSON, now: datetime) -> list[Any]:
    return [name_of(found), at(found, "status", "phase") or "", age(found, now)]


def _config_map(found: JSON, now: datetime) -> list[Any]:
    return [name_of(found), len(found.get("data") or ()) + len(found.get("binaryData") or ()), age(found, now)]


def _secret(found: JSON, now: datetime) -> list[Any]:
    return [name_of(found), found.get("type", ""), len(found.get("data") or ()), age(found, now)]


def _service_account(found: JSON, now: datetime) -> list[Any]:
    return [name_of(found), len(found.get("secrets") or ()), age(found, now)]


def _lease(found: JSON, now: datetime) -> list[Any]:
    return [name_of(found), at(found, "spec", "holderIdentity") or "", age(found, now)]


def _event(event: JSON, now: datetime) -> list[Any]:
    series = event.get("series") or {}
    first = event.get("firstTimestamp") or event.get("eventTime")
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or first
    count = series.get("count") or event.get("count") or (1 if event.get("eventTime") else 0)
    involved = event.get("involvedObject") or {}
    last_seen = since(last, now)
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    host = source.get("host") or ""
    return [
        last_seen,
        event.get("type", ""),
        event.get("reason", ""),
        f"{involved.get('kind', '').lower()}/{involved.get('name', '')}",
        involved.get("fieldPath", ""),
        ", ".join(filter(None, (component, host))),
        (event.get("message") or "").strip(),
        since(first, now),
        count,
        name_of(event),
    ]


_EVENT_COLUMNS = (
    Column("Last Seen"),
    Column("Type"),
    Column("Reason"),
    Column("Object"),
    *wide("Subobject", "Source"),
    Column("Message"),
    *wide("First Seen"),
    Column("Count", "integer", 1),
    Column("Name", priority=1, format="name"),
)

PRINTERS = {
    (kind.group, kind.plural): printer
    for kind, printer in (
        (
            registry.NODE,
            Printer(
                (
                    NAME,
                    Column("Status"),
                    Column("Roles"),
                    AGE,
                    Column("Version"),
                    *wide("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
                ),
                _node,
            ),
        ),
        (registry.NAMESPACE, Printer((NAME, Column("Status"), AGE), _namespace)),
        (registry.CONFIG_MAP, Printer((NAME, Column("Data", "integer"), AGE), _config_map)),
        (registry.SECRET, Printer((NAME, Column("Type"), Column("Data", "integer"), AGE), _secret)),
        (registry.SERVICE_ACCOUNT, Printer((NAME, Column("Secrets", "integer"), AGE), _service_account)),
        (registry.LEASE, Printer((NAME, Column("Holder"), AGE), _lease)),
        (registry.EVENT, Printer(_EVENT_COLUMNS, _event)),
    )
}
