"""Whether a ServiceCIDR is ready, and when one being deleted may go: once another covers each address in use.

Follows pkg/controller/servicecidrs and KEP-1880.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import msgspec

from kubesvc.api.labels import SERVICE_CIDR_FINALIZER
from kubesvc.api.meta import JSON, format_time, parse_time
from kubesvc.api.networking import ServiceCIDR

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

READY = ("True", "", "Kubernetes Service CIDR is ready")
IN_USE = (
    "False",
    "Terminating",
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
)


class Plan(msgspec.Struct, frozen=True):
    """`patch` changes the finalizers, `status` the Ready condition; `wait` is when to look again, in seconds."""

    patch: JSON | None = None
    status: JSON | None = None
    wait: float | None = None


def networks(cidr: ServiceCIDR) -> list[Network]:
    return [ip_network(text) for text in cidr.spec.cidrs]


def only_here(cidr: ServiceCIDR, others: Iterable[ServiceCIDR], addresses: Iterable[Address]) -> bool:
    """Whether one of `addresses` lies in `cidr` and in none of the `others` that are to stay."""
    own = networks(cidr)
    covering = [n for other in others if other.metadata.deletion_timestamp is None for n in networks(other)]
    return any(
        any(address in network for network in own) and not any(address in network for network in covering)
        for address in addresses
    )


def plan(
    cidr: ServiceCIDR, others: Iterable[ServiceCIDR], addresses: Iterable[Address], now: datetime, grace: float
) -> Plan:
    """`addresses` are all those claimed. `grace` seconds after being asked to go it still stays, for those who are
    just claiming an address of it."""
    finalizers = cidr.metadata.finalizers
    if cidr.metadata.deletion_timestamp is None:
        added = (
            None if SERVICE_CIDR_FINALIZER in finalizers else _finalizers(cidr, [*finalizers, SERVICE_CIDR_FINALIZER])
        )
        return Plan(patch=added, status=_ready(cidr, READY, now))
    if SERVICE_CIDR_FINALIZER not in finalizers:
        return Plan()
    if only_here(cidr, others, addresses):
        return Plan(status=_ready(cidr, IN_USE, now))
    left = grace - (now - parse_time(cidr.metadata.deletion_timestamp)).total_seconds()
    if left > 0:
        return Plan(wait=left)
    return Plan(patch=_finalizers(cidr, [f for f in finalizers if f != SERVICE_CIDR_FINALIZER]))


def _finalizers(cidr: ServiceCIDR, wanted: list[str]) -> JSON:
    meta = cidr.metadata
    return {"metadata": {"resourceVersion": meta.resource_version, "uid": meta.uid, "finalizers": wanted or None}}


def _ready(cidr: ServiceCIDR, wanted: tuple[str, str, str], now: datetime) -> JSON | None:
    """The status patch that sets the Ready condition; None when it says so already."""
    status, reason, message = wanted
    found = next((c for c in cidr.status.conditions if c.type == "Ready"), None)
    if found is not None and (found.status, found.reason, found.message) == wanted:
        return None
    turned = found.last_transition_time if found is not None and found.status == status else format_time(now)
    condition = {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": turned}
    return {"status": {"conditions": [condition]}}
