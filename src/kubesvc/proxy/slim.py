"""Services and slices without what the proxy never looks at, and with one copy of what most of them share. Pure.

At 10,000 Services a copy of everything is most of the process: pods' names and uids in every endpoint, labels,
annotations, owners. What is left out here is left out as each object is decoded, so it never piles up.
"""

from __future__ import annotations

from functools import lru_cache
from sys import intern

from msgspec.structs import replace

from kubesvc.api.core import Service
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


def slim_service(service: Service) -> Service:
    spec = service.spec
    return Service(
        metadata=_meta(service.metadata),
        spec=replace(
            spec,
            type=intern(spec.type),
            selector=None,
            ip_families=[],
            ip_family_policy=None,
            external_traffic_policy=intern(spec.external_traffic_policy),
            internal_traffic_policy=None
            if spec.internal_traffic_policy is None
            else intern(spec.internal_traffic_policy),
            session_affinity=intern(spec.session_affinity),
        ),
        status=service.status,
    )


def slim_slice(found: EndpointSlice) -> EndpointSlice:
    return EndpointSlice(
        metadata=_meta(found.metadata),
        address_type=intern(found.address_type),
        endpoints=[_endpoint(endpoint) for endpoint in found.endpoints],
        ports=None if found.ports is None else _ports(tuple(found.ports)),
    )


def _meta(meta: ObjectMeta) -> ObjectMeta:
    """What the cache needs, and what the proxy reads. The uid is what an Event about the object names."""
    return ObjectMeta(
        name=meta.name,
        namespace=intern(meta.namespace),
        uid=meta.uid,
        resource_version=meta.resource_version,
        labels={key: meta.labels[key] for key in _LABELS if key in meta.labels},
        annotations={key: meta.annotations[key] for key in _ANNOTATIONS if key in meta.annotations},
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
def _ports(ports: tuple[SlicePort, ...]) -> list[SlicePort]:
    return list(ports)
