"""networking.k8s.io/v1 ServiceCIDR and IPAddress: cluster IP ranges, and one object per claimed address."""

from __future__ import annotations

from kubesvc.api.meta import Condition, Object, Struct


class ServiceCIDRSpec(Struct, frozen=True):
    cidrs: list[str] = []


class ServiceCIDRStatus(Struct, frozen=True):
    conditions: list[Condition] = []


class ServiceCIDR(Object, frozen=True):
    spec: ServiceCIDRSpec = ServiceCIDRSpec()
    status: ServiceCIDRStatus = ServiceCIDRStatus()


class ParentReference(Struct, frozen=True):
    resource: str = ""
    namespace: str = ""
    name: str = ""
    group: str = ""


class IPAddressSpec(Struct, frozen=True):
    parent_ref: ParentReference = ParentReference()


class IPAddress(Object, frozen=True):
    spec: IPAddressSpec = IPAddressSpec()
