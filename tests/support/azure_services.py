"""Services and nodes as a cluster in Azure has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubesvc.api.core import Service, ServicePort, ServiceSpec
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.nodes import Node, NodeAddress, NodeSpec, NodeStatus

AZURE = "service.beta.kubernetes.io/azure-"
INTERNAL, PIP_NAME = AZURE + "load-balancer-internal", AZURE + "pip-name"


def service(
    name: str = "web",
    ports: Sequence[tuple[int, int, str]] = ((80, 30080, "TCP"),),
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Service:
    """`ports`: (port, node port, protocol)."""
    given: dict[str, Any] = {"ip_families": ["IPv4"], "external_traffic_policy": "Cluster", **spec}
    listed = [ServicePort(port=p, node_port=n, protocol=protocol, name=f"p{p}") for p, n, protocol in ports]
    return Service(
        metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-{name}", annotations=dict(annotations or {})),
        spec=ServiceSpec(**({"type": "LoadBalancer", "ports": listed} | given)),
    )


def nodes(*addresses: str, provider_id: str = "azure:///subscriptions/x/vm") -> list[Node]:
    """One for each address, n1, n2 and so on."""
    return [
        Node(
            metadata=ObjectMeta(name=f"n{number}"),
            spec=NodeSpec(provider_id=provider_id),
            status=NodeStatus(addresses=[NodeAddress("InternalIP", part) for part in address.split(",")]),
        )
        for number, address in enumerate(addresses, start=1)
    ]
