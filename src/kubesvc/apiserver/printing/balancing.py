"""What configures the load balancer: pools, advertisements, peers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.apiserver.printing.columns import AGE, NAME, Column, Printer, at, name_of, shorten, wide
from kubesvc.apiserver.printing.duration import age


def _pool(found: JSON, now: datetime) -> list[Any]:
    spec, status = found.get("spec") or {}, found.get("status") or {}
    return [
        name_of(found),
        "true" if spec.get("autoAssign", True) else "false",
        shorten(spec.get("addresses") or [], "<none>"),
        (status.get("assignedIPv4") or 0) + (status.get("assignedIPv6") or 0),
        age(found, now),
        status.get("message") or "",
    ]


def _advertisement(found: JSON, now: datetime) -> list[Any]:
    pools = at(found, "spec", "ipAddressPools") or []
    return [name_of(found), shorten(pools, "<all>"), age(found, now), at(found, "status", "message") or ""]


def _peer(found: JSON, now: datetime) -> list[Any]:
    sessions = at(found, "status", "sessions") or {}
    up = sum(1 for session in sessions.values() if session.get("state") == "Established")
    spec = found.get("spec") or {}
    return [
        name_of(found),
        spec.get("peerAddress") or "",
        spec.get("peerASN") or 0,
        f"{up}/{len(sessions)}",
        age(found, now),
    ]


_ADVERTISEMENT = Printer((NAME, Column("Pools"), AGE, *wide("Message")), _advertisement)

PRINTERS = {
    (registry.GROUP, "ipaddresspools"): Printer(
        (NAME, Column("Auto Assign"), Column("Addresses"), Column("Assigned", "integer"), AGE, *wide("Message")), _pool
    ),
    (registry.GROUP, "l2advertisements"): _ADVERTISEMENT,
    (registry.GROUP, "bgpadvertisements"): _ADVERTISEMENT,
    (registry.GROUP, "bgppeers"): Printer(
        (NAME, Column("Address"), Column("ASN", "integer"), Column("Established"), AGE), _peer
    ),
}
