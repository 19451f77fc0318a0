"""core/v1 Node as the rooms read it."""

from __future__ import annotations

import msgspec

from kubesvc.api.meta import Condition, Object, Struct


class Taint(Struct, frozen=True):
    key: str
    effect: str
    value: str = ""


class NodeSpec(Struct, frozen=True):
    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: list[str] = msgspec.field(default_factory=list, name="podCIDRs")
    provider_id: str = msgspec.field(default="", name="providerID")
    unschedulable: bool = False
    taints: list[Taint] = []


class NodeAddress(Struct, frozen=True):
    type: str  # InternalIP | ExternalIP | Hostname
    address: str


class NodeDaemonEndpoint(Struct, frozen=True):
    port: int = msgspec.field(default=0, name="Port")


class NodeDaemonEndpoints(Struct, frozen=True):
    kubelet_endpoint: NodeDaemonEndpoint = NodeDaemonEndpoint()


class NodeStatus(Struct, frozen=True):
    addresses: list[NodeAddress] = []
    allocatable: dict[str, int | float | str] = {}
    conditions: list[Condition] = []
    daemon_endpoints: NodeDaemonEndpoints = NodeDaemonEndpoints()


class Node(Object, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def internal_ips(self) -> list[str]:
        return [a.address for a in self.status.addresses if a.type == "InternalIP"]

    @property
    def ready(self) -> bool:
        """Whether its Ready condition is True."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)
