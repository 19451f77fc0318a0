"""HorizontalPodAutoscalers of autoscaling/v1: they are stored as v2, which can say more.

    v2 spec.metrics, of CPU in percent   ◄─►  v1 spec.targetCPUUtilizationPercentage
    v2 spec.metrics, all others          ◄─►  v1 metadata.annotations[autoscaling.alpha.kubernetes.io/metrics]
    v2 spec.behavior, status.conditions  ◄─►  v1 annotations …/behavior, …/conditions

The annotations are JSON, so that a client of v1 which sends back what it got loses nothing. Their metrics are flat, as
v1's once were: {"name":"memory","targetAverageValue":"1Gi"}. Follows pkg/apis/autoscaling/v1/conversion.go.
status.currentMetrics but CPU's are not shown in v1: nothing here measures any. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kubesvc.api.meta import JSON

_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS, _BEHAVIOR, _CONDITIONS = _PREFIX + "metrics", _PREFIX + "behavior", _PREFIX + "conditions"

DEFAULT_CPU = 80
"""Percent, where nothing is said."""

# type of a metric -> field of its target in v2 -> its name in v1
_TARGETS = {
    "Resource": {"averageUtilization": "targetAverageUtilization", "averageValue": "targetAverageValue"},
    "ContainerResource": {"averageUtilization": "targetAverageUtilization", "averageValue": "targetAverageValue"},
    "Pods": {"averageValue": "targetAverageValue"},
    "Object": {"value": "targetValue", "averageValue": "averageValue"},
    "External": {"value": "targetValue", "averageValue": "targetAverageValue"},
}
_TYPES = {"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}
# type of a metric -> name of its field, and of the selector in v1
_FIELDS = {"Resource": "resource", "ContainerResource": "containerResource", "Pods": "pods", "Object": "object",
           "External": "external"}  # fmt: skip
_SELECTORS = {"Pods": "selector", "Object": "selector", "External": "metricSelector"}


def cpu(percent: int) -> JSON:
    """The metric of v2 that keeps CPU at `percent` of what is requested."""
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def to_v1(tree: JSON) -> JSON:
    """A v2 object as v1; `tree` is left alone."""
    spec, status = dict(tree.get("spec") or {}), dict(tree.get("status") or {})
    annotations = dict(tree["metadata"].get("annotations") or {})
    metrics = spec.pop("metrics", None) or []
    percent = next((p for metric in metrics if (p := _percent(metric)) is not None), None)
    others = [metric for metric in metrics if percent is None or metric != cpu(percent)]
    if percent is not None:
        spec["targetCPUUtilizationPercentage"] = percent
    current = status.pop("currentMetrics", None) or []
    measured = next((p for metric in current if (p := _percent(metric, "current")) is not None), None)
    if measured is not None:
        status["currentCPUUtilizationPercentage"] = measured
    for name, value in (
        (_METRICS, [_flat(metric) for metric in others]),
        (_BEHAVIOR, spec.pop("behavior", None)),
        (_CONDITIONS, status.pop("conditions", None)),
    ):
        if value:
            annotations[name] = msgspec.json.encode(value).decode()
    return _assembled(tree, "autoscaling/v1", annotations, spec, status)


def to_v2(tree: JSON) -> JSON:
    """A v1 object as v2; `tree` is left alone. Annotations of others that only look like ours stay what they are."""
    spec, status = dict(tree.get("spec") or {}), dict(tree.get("status") or {})
    annotations = dict(tree["metadata"].get("annotations") or {})
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    metrics = [_nested(metric) for metric in _carried(annotations, _METRICS, list)]
    if percent is not None or not metrics:
        metrics.insert(0, cpu(percent or DEFAULT_CPU))
    spec["metrics"] = metrics
    if behavior := _carried(annotations, _BEHAVIOR, dict):
        spec["behavior"] = behavior
    if conditions := _carried(annotations, _CONDITIONS, list):
        status["conditions"] = conditions
    measured = status.pop("currentCPUUtilizationPercentage", None)
    if measured is not None:
        resource = {"name": "cpu", "current": {"averageUtilization": measured}}
        status["currentMetrics"] = [{"type": "Resource", "resource": resource}]
    return _assembled(tree, "autoscaling/v2", annotations, spec, status)


def _assembled(tree: JSON, api_version: str, annotations: JSON, spec: JSON, status: JSON) -> JSON:
    metadata = {name: value for name, value in tree["metadata"].items() if name != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    found = {**tree, "apiVersion": api_version, "metadata": metadata, "spec": spec}
    found.pop("status", None)
    return {**found, "status": status} if status else found


def _percent(metric: JSON, where: str = "target") -> int | None:
    """The percentage of CPU a metric is about; None for one of anything else."""
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    found: int | None = (resource.get(where) or {}).get("averageUtilization")
    return found


def _flat(metric: JSON) -> JSON:
    kind = metric.get("type", "")
    field = _FIELDS.get(kind, "")
    inner = dict(metric.get(field) or {})
    target, identity = inner.pop("target", None) or {}, inner.pop("metric", None) or {}
    if described := inner.pop("describedObject", None):
        inner["target"] = described
    if identity:
        inner["metricName"] = identity.get("name", "")
        if selector := identity.get("selector"):
            inner[_SELECTORS[kind]] = selector
    inner |= {flat: target[name] for name, flat in _TARGETS.get(kind, {}).items() if name in target}
    return {"type": kind, field: inner}


def _nested(metric: JSON) -> JSON:
    kind = metric.get("type", "")
    field = _FIELDS.get(kind, "")
    inner = dict(metric.get(field) or {})
    if kind == "Object" and "target" in inner:
        inner["describedObject"] = inner.pop("target")
    if "metricName" in inner:
        inner["metric"] = {"name": inner.pop("metricName")}
        if selector := inner.pop(_SELECTORS[kind], None):
            inner["metric"]["selector"] = selector
    given = {name: inner.pop(flat) for name, flat in _TARGETS.get(kind, {}).items() if flat in inner}
    if given:
        inner["target"] = {"type": _TYPES[next(iter(given))], **given}
    return {"type": kind, field: inner}


def _carried(annotations: JSON, name: str, of: type) -> Any:
    """What an annotation carries, which is then taken away; nothing where it isn't ours."""
    try:
        found = msgspec.json.decode(annotations[name])
    except (KeyError, TypeError, msgspec.DecodeError):
        return of()
    fits = _is_flat if name == _METRICS else _is_object
    if not isinstance(found, of) or (isinstance(found, list) and not all(map(fits, found))):
        return of()
    del annotations[name]
    return found


def _is_object(item: Any) -> bool:
    return isinstance(item, dict)


def _is_flat(metric: Any) -> bool:
    field = _FIELDS.get(str(metric.get("type"))) if isinstance(metric, dict) else None
    return field is not None and isinstance(metric.get(field), dict)
