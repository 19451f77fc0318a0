"""What a Service asks of the pools: families, addresses, a pool, company. Pure.

spec.loadBalancerIP and the annotations of MetalLB are honoured, under our prefix and both of MetalLB's:

    kubesvc.dev/load-balancer-ips  metallb.io/loadBalancerIPs   addresses, joined by commas, one of each family
    kubesvc.dev/address-pool       metallb.io/address-pool      the name of the pool
    kubesvc.dev/allow-shared-ip    metallb.io/allow-shared-ip   Services with one key may share an address
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address

import msgspec

from kubesvc.api.balancing import Address
from kubesvc.api.core import Service
from kubesvc.api.labels import ADDRESS_POOL, ALLOW_SHARED_IP, LOAD_BALANCER_IPS

_PREFIXES = ("metallb.io", "metallb.universe.tf")
IPS = (LOAD_BALANCER_IPS, *(f"{p}/loadBalancerIPs" for p in _PREFIXES))
POOL = (ADDRESS_POOL, *(f"{p}/address-pool" for p in _PREFIXES))
SHARED = (ALLOW_SHARED_IP, *(f"{p}/allow-shared-ip" for p in _PREFIXES))


class Reason(StrEnum):
    """Why an address can't be had; the word that the Service's condition shows."""

    NO_POOL = "NoPool"
    POOL_EXHAUSTED = "PoolExhausted"
    POOL_NOT_FOUND = "PoolNotFound"
    POOL_NOT_ALLOWED = "PoolNotAllowed"
    ADDRESS_IN_USE = "AddressInUse"
    ADDRESS_OUTSIDE_POOL = "AddressOutsidePool"
    INVALID_ADDRESS = "InvalidAddress"
    CONFLICTING_REQUEST = "ConflictingRequest"
    FAMILY_NOT_SERVED = "FamilyNotServed"


class Refusal(msgspec.Struct, frozen=True):
    reason: Reason
    message: str


class Sharing(msgspec.Struct, frozen=True):
    """Two Services may share an address when their keys are equal, their ports differ, and a packet may go to the same
    nodes for both: `backends` is empty for policy Cluster, the selector for policy Local."""

    key: str
    ports: frozenset[tuple[str, int]]  # protocol, port
    backends: tuple[tuple[str, str], ...] = ()

    def conflict(self, other: Sharing | None) -> str:
        """Why the two can't share; "" when they can."""
        if other is None or self.key != other.key:
            return "it isn't shared under that key"
        if both := self.ports & other.ports:
            return f"both use port {', '.join(f'{port}/{protocol}' for protocol, port in sorted(both))}"
        if self.backends != other.backends:
            return "policy Local needs the same selector in both"
        return ""


class Wish(msgspec.Struct, frozen=True):
    """`families` are 4 and 6, in the Service's order; `all_families`: one of them alone won't do."""

    families: tuple[int, ...] = (4,)
    all_families: bool = False
    addresses: tuple[Address, ...] = ()  # at most one of a family
    pool: str = ""
    sharing: Sharing | None = None


def wish_of(service: Service) -> Wish | Refusal:
    """What the Service asks for, or why that makes no sense."""
    spec, annotations = service.spec, service.metadata.annotations
    families = tuple(4 if family == "IPv4" else 6 for family in spec.ip_families) or (4,)
    asked = _addresses(spec.load_balancer_ip, annotations, families)
    if isinstance(asked, Refusal):
        return asked
    named = {annotations[a]: a for a in POOL if annotations.get(a)}
    if len(named) > 1:
        listed = " and ".join(f"{name} ({where})" for name, where in named.items())
        return Refusal(Reason.CONFLICTING_REQUEST, f"asks for several pools, {listed}; ask for one")
    return Wish(
        families,
        spec.ip_family_policy == "RequireDualStack",
        asked,
        next(iter(named), ""),
        sharing_of(service),
    )


def sharing_of(service: Service) -> Sharing | None:
    """With whom the Service may share an address, whatever becomes of its other wishes; None: with nobody."""
    spec, annotations = service.spec, service.metadata.annotations
    key = next((annotations[a] for a in SHARED if annotations.get(a)), "")
    local = spec.external_traffic_policy == "Local"
    if not key:
        return None
    return Sharing(
        key,
        frozenset((port.protocol, port.port) for port in spec.ports),
        tuple(sorted((spec.selector or {}).items())) if local else (),
    )


def _addresses(
    load_balancer_ip: str, annotations: Mapping[str, str], families: tuple[int, ...]
) -> tuple[Address, ...] | Refusal:
    asked = {"spec.loadBalancerIP": load_balancer_ip} | {f"annotation {a}": annotations.get(a, "") for a in IPS}
    found: dict[Address, str] = {}  # address -> where it was asked for
    for where, text in asked.items():
        for part in filter(None, (p.strip() for p in text.split(","))):
            try:
                address = ip_address(part)
            except ValueError:
                return Refusal(Reason.INVALID_ADDRESS, f"{where}: {part!r} is not an IP address")
            if address.version not in families:
                return Refusal(
                    Reason.FAMILY_NOT_SERVED,
                    f"{where}: {address} is IPv{address.version}, which isn't in the Service's ipFamilies",
                )
            found.setdefault(address, where)
    if len({address.version for address in found}) < len(found):
        listed = ", ".join(f"{address} ({where})" for address, where in found.items())
        return Refusal(Reason.CONFLICTING_REQUEST, f"asks for several addresses of a family, {listed}; ask for one")
    return tuple(sorted(found, key=lambda a: families.index(a.version)))
