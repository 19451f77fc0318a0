"""discovery.k8s.io/v1 EndpointSlice as the rooms read it.

`conditions` answers the questions the proxy and DNS ask; nil means what `dataplane` readers agreed on upstream:
nil ready or serving is True, nil terminating is False.
"""

from __future__ import annotations

from kubesvc.api.core import ObjectReference
from kubesvc.api.meta import Object, Struct


class EndpointConditions(Struct, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Struct, frozen=True):
    name: str


class ForNode(Struct, frozen=True):
    name: str


class EndpointHints(Struct, frozen=True):
    for_zones: list[ForZone] = []
    for_nodes: list[ForNode] = []


class SlicePort(Struct, frozen=True):
    name: str | None = ""
    protocol: str | None = "TCP"
    port: int | None = None
    app_protocol: str | None = None


class Endpoint(Struct, frozen=True):
    addresses: list[str] = []
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None
    target_ref: ObjectReference | None = None

    @property
    def ready(self) -> bool:
        return self.conditions.ready is not False

    @property
    def serving(self) -> bool:
        """Passing its readiness checks, terminating or not. Nil falls back to `ready`'s nil rule: True."""
        return self.conditions.serving is not False

    @property
    def terminating(self) -> bool:
        return self.conditions.terminating is True


class EndpointSlice(Object, frozen=True):
    address_type: str = "IPv4"
    endpoints: list[Endpoint] = []
    ports: list[SlicePort] | None = None

    @property
    def service_name(self) -> str:
        """The Service this slice belongs to, in the slice's own namespace; "" when it belongs to none."""
        return self.metadata.labels.get("kubernetes.io/service-name", "")
