"""Services and slices without what the proxy never looks at, and with one copy of what most of them share. Pure.

At 10,000 Services a copy of everything is most of the process: pods' names and uids in every endpoint, labels,
annotations, owners. What is left out here is left out as each object is decoded, so it never piles up.
"""

from __future__ import annotations

from functools import lru_cache
from sys import intern
from typing import Any

from msgspec.structs import replace

from kubesvc.api.core import Service, ServicePort, ServiceStatus
from kubesvc.api.discovery import Endpoint, EndpointConditions, EndpointSlice, SlicePort
from kubesvc.api.labels import (
    BALANCE,
    BALANCE_KEY,
    LAST_CHANGE_TRIGGER_TIME,
    SERVICE_NAME,
    SERVICE_PROXY_NAME,
    WEIGHTS,
)
from kubesvc.api.meta import ObjectMeta

_LABELS = (SERVICE_NAME, SERVICE_PROXY_NAME)
_ANNOTATIONS = (LAST_CHANGE_TRIGGER_TIME, BALANCE, BALANCE_KEY, WEIGHTS)
_EMPTY: list[Any] = []  # one for all: a decoded object has a dozen of its own
_NOTHING: dict[str, str] = {}
_NO_STATUS = ServiceStatus()


def slim_service(service: Service) -> Service:
    spec = service.spec
    return Service(
        metadata=_meta(service.metadata),
        spec=replace(
            spec,
            type=intern(spec.type),
            selector=None,
            ports=_service_ports(tuple(spec.ports)),
            cluster_ips=[spec.cluster_ip] if spec.cluster_ips == [spec.cluster_ip] else spec.cluster_ips,
            external_ips=spec.external_ips or _EMPTY,
            load_balancer_source_ranges=spec.load_balancer_source_ranges or _EMPTY,
            ip_families=_EMPTY,
            ip_family_policy=None,
            external_traffic_policy=intern(spec.external_traffic_policy),
            internal_traffic_policy=None
            if spec.internal_traffic_policy is None
            else intern(spec.internal_traffic_policy),
            session_affinity=intern(spec.session_affinity),
        ),
        status=service.status if service.status.load_balancer.ingress else _NO_STATUS,
    )


def slim_slice(found: EndpointSlice) -> EndpointSlice:
    return EndpointSlice(
        metadata=_meta(found.metadata, uid=""),
        address_type=intern(found.address_type),
        endpoints=[_endpoint(endpoint) for endpoint in found.endpoints],
        ports=None if found.ports is None else _ports(tuple(found.ports)),
    )


def _meta(meta: ObjectMeta, uid: str | None = None) -> ObjectMeta:
    """What the cache needs, and what the proxy reads. The uid is what an Event about the object names."""
    return ObjectMeta(
        name=meta.name,
        namespace=intern(meta.namespace),
        uid=meta.uid if uid is None else uid,
        resource_version=meta.resource_version,
        labels={key: meta.labels[key] for key in _LABELS if key in meta.labels} or _NOTHING,
        annotations={key: meta.annotations[key] for key in _ANNOTATIONS if key in meta.annotations} or _NOTHING,
        owner_references=_EMPTY,
        finalizers=_EMPTY,
    )


def _endpoint(endpoint: Endpoint) -> Endpoint:
    return Endpoint(
        addresses=endpoint.addresses,
        conditions=_conditions(endpoint.conditions),
        node_name=None if endpoint.node_name is None else intern(endpoint.node_name),
        hints=endpoint.hints,
    )


@lru_cache(maxsize=64)
def _conditions(conditions: EndpointConditions) -> EndpointConditions:
    return conditions


@lru_cache(maxsize=1024)
def _service_ports(ports: tuple[ServicePort, ...]) -> list[ServicePort]:
    return list(ports)


@lru_cache(maxsize=1024)
def _ports(ports: tuple[SlicePort, ...]) -> list[SlicePort]:
    return list(ports)
