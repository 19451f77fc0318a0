"""Objects for tests, with only what a story is about spelled out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from kubesvc.api.apps import Deployment, ReplicaSet
from kubesvc.api.core import Namespace, Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.meta import Object
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod

T = TypeVar("T", bound=Object)

CREATED = "2026-01-01T00:00:00Z"


def make(view: type[T], name: str, meta: dict[str, Any] | None = None, **fields: Any) -> T:
    """An object in namespace `default` whose uid is `uid-NAME`, decoded from wire spelling."""
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": CREATED,
        **(meta or {}),
    }
    return msgspec.convert({"metadata": metadata, **fields}, view)


def owned_by(kind: str, name: str, controller: bool = True) -> dict[str, Any]:
    """Metadata of what belongs to the object `name`, whose uid is `uid-NAME`."""
    api_version = "apps/v1" if kind in ("ReplicaSet", "Deployment") else "v1"
    reference = {"apiVersion": api_version, "kind": kind, "name": name, "uid": f"uid-{name}"}
    return {"ownerReferences": [{**reference, "controller": controller, "blockOwnerDeletion": True}]}


def service(name: str = "web", labels: dict[str, str] | None = None, **spec: Any) -> Service:
    """A Service with port 80 that selects app=NAME."""
    annotations = spec.pop("annotations", {})
    whole = {
        "selector": {"app": name},
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        "clusterIP": "10.96.0.5",
        "ipFamilies": ["IPv4"],
        **spec,
    }
    return make(Service, name, {"labels": labels or {}, "annotations": annotations}, spec=whole)


def pod(
    name: str,
    ips: list[str] | str = (),  # type: ignore[assignment]
    *,
    ready: bool = True,
    node: str = "n1",
    phase: str = "Running",
    labels: dict[str, str] | None = None,
    going: bool = False,
    since: str = CREATED,
    meta: dict[str, Any] | None = None,
    **spec: Any,
) -> Pod:
    """A pod of app=web."""
    addresses = [ips] if isinstance(ips, str) else list(ips)
    metadata: dict[str, Any] = {"labels": {"app": "web"} if labels is None else labels, **(meta or {})}
    if going:
        metadata["deletionTimestamp"] = CREATED
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}]
    status = {"phase": phase, "podIPs": [{"ip": ip} for ip in addresses], "conditions": conditions}
    return make(Pod, name, metadata, spec={"nodeName": node, **spec}, status=status)


def node(name: str, labels: dict[str, str] | None = None, *, ready: bool = True, **spec: Any) -> Node:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    meta = {"namespace": "", "labels": labels or {}}
    return make(Node, name, meta, spec=spec, status={"conditions": conditions})


def namespace(name: str, meta: dict[str, Any] | None = None, **spec: Any) -> Namespace:
    return make(Namespace, name, {"namespace": "", **(meta or {})}, spec=spec)


def endpoint_slice(name: str, meta: dict[str, Any] | None = None, **fields: Any) -> EndpointSlice:
    return make(EndpointSlice, name, meta, **fields)


def replica_set(
    name: str,
    replicas: int,
    *,
    available: int | None = None,
    version: str = "1",
    meta: dict[str, Any] | None = None,
    **status: Any,
) -> ReplicaSet:
    """A ReplicaSet of Deployment web with a template of version `version`; all its pods available unless said."""
    ready = replicas if available is None else available
    counts = {"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready, "observedGeneration": 1}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(version)}
    metadata = {**owned_by("Deployment", "web"), "labels": {"app": "web"}, **(meta or {})}
    return make(ReplicaSet, name, metadata, spec=spec, status={**counts, **status})


def template(version: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": f"web:{version}"}]},
    }


def deployment(
    replicas: int, version: str = "1", *, meta: dict[str, Any] | None = None, status: Any = None, **spec: Any
) -> Deployment:
    whole = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(version),
        **spec,
    }
    return make(Deployment, "web", meta, spec=whole, status=status or {})


LONG_DUE = '{"status":{"lastScheduleTime":"2020-01-01T00:00:00Z"}}'
"""The patch of a CronJob's status that makes any schedule due at once."""


def far_away() -> str:
    """A schedule that is due once a year and some months from now, so that no test meets the day."""
    return f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *"
