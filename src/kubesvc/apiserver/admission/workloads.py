"""The rules of what keeps pods: Deployment, ReplicaSet, StatefulSet, DaemonSet.

They share a selector, a pod template that must match it, and counts that may not be negative.
Source: pkg/apis/apps/v1/defaults.go, pkg/apis/apps/validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubesvc.api import registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON, LabelSelector
from kubesvc.api.selectors import from_label_selector, matches
from kubesvc.apiserver.admission import metadata, pod, pod_defaults, unserved
from kubesvc.apiserver.admission.causes import IMMUTABLE, forbidden, invalid, not_supported, required
from kubesvc.apiserver.admission.containers import NEGATIVE
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules

_PERCENT = re.compile(r"[0-9]+%")
_RETENTION = ("Retain", "Delete")
_MAY_CHANGE = ("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
               "persistentVolumeClaimRetentionPolicy", "minReadySeconds")  # fmt: skip
_PERCENT_WHY = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)


def default_template(tree: JSON, **values: Any) -> JSON:
    """The spec, with plain defaults and those of its pod template filled in."""
    spec: JSON = tree.setdefault("spec", {})
    for name, value in values.items():
        if spec.get(name) is None:
            spec[name] = value
    template = spec.get("template")
    if isinstance(template, dict):
        template.setdefault("metadata", {})
        pod_defaults.template(template.setdefault("spec", {}))
    return spec


def default_deployment(tree: JSON) -> None:
    spec = default_template(tree, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.get("strategy") or {}
    spec["strategy"] = strategy
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        strategy["rollingUpdate"] = {"maxUnavailable": "25%", "maxSurge": "25%"} | {
            k: v for k, v in rolling.items() if v is not None
        }


def default_replica_set(tree: JSON) -> None:
    default_template(tree, replicas=1)


def default_stateful_set(tree: JSON) -> None:
    spec = default_template(tree, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady")
    strategy = spec["updateStrategy"] = spec.get("updateStrategy") or {}
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Retain", "whenScaled": "Retain"} | (
        spec.get("persistentVolumeClaimRetentionPolicy") or {}
    )


def default_daemon_set(tree: JSON) -> None:
    spec = default_template(tree, revisionHistoryLimit=10)
    strategy = spec["updateStrategy"] = spec.get("updateStrategy") or {}
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxUnavailable": 1, "maxSurge": 0} | (strategy.get("rollingUpdate") or {})


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec = new.get("spec") or {}
    causes = [*_selector(new["kind"], spec), *validate_template(new["kind"], spec), *_counts(spec)]
    if old is not None and spec.get("selector") != (old.get("spec") or {}).get("selector"):
        causes.append(invalid("spec.selector", spec.get("selector"), IMMUTABLE))
    return causes


def validate_deployment(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes = validate(new, old, context)
    if context.subresource != "status":
        causes += _strategy(new.get("spec") or {})
    return causes


def validate_stateful_set(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes = validate(new, None, context)
    if context.subresource != "status":
        spec = new.get("spec") or {}
        if old is not None and _fixed(spec) != _fixed(old.get("spec") or {}):
            names = ", ".join(f"'{name}'" for name in _MAY_CHANGE[:-1])
            fields = f"{names} and '{_MAY_CHANGE[-1]}'"
            why = f"updates to statefulset spec for fields other than {fields} are forbidden"
            causes.append(forbidden("spec", why))
        policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
        for name in ("whenDeleted", "whenScaled"):
            if policy.get(name) not in _RETENTION:
                path = f"spec.persistentVolumeClaimRetentionPolicy.{name}"
                causes.append(not_supported(path, policy.get(name), _RETENTION))
    return causes


def _fixed(spec: JSON) -> JSON:
    return {name: value for name, value in spec.items() if name not in _MAY_CHANGE and value not in (None, [], "")}


def _selector(kind: str, spec: JSON) -> Iterator[Cause]:
    selector = spec.get("selector")
    if selector is None:
        yield required("spec.selector")
        return
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid("spec.selector", selector, f"empty selector is invalid for {kind.lower()}")
        return
    problems = metadata.validate_selector(selector, "spec.selector")
    yield from problems
    template = (spec.get("template") or {}).get("metadata") or {}
    found = template.get("labels") or {}
    if problems or "template" not in spec:
        return
    typed = msgspec.convert(selector, LabelSelector)
    if not matches(from_label_selector(typed), found):
        why = "`selector` does not match template `labels`"
        yield invalid("spec.template.metadata.labels", found, why)


def validate_template(kind: str, spec: JSON) -> Iterator[Cause]:
    if "template" not in spec:
        yield required("spec.template")
        return
    meta, pod_spec = spec["template"].get("metadata") or {}, spec["template"].get("spec") or {}
    yield from metadata.validate_labels(meta.get("labels"), "spec.template.metadata.labels")
    yield from metadata.validate_annotations(meta.get("annotations"), "spec.template.metadata.annotations")
    claimed = [{"name": (t.get("metadata") or {}).get("name")} for t in spec.get("volumeClaimTemplates") or ()]
    if claimed:  # the controller makes a volume of each, in the place of one of that name
        own = [v for v in pod_spec.get("volumes") or () if {"name": v.get("name")} not in claimed]
        pod_spec = pod_spec | {"volumes": [*own, *(name | {"emptyDir": {}} for name in claimed)]}
    yield from pod.validate_spec(pod_spec, "spec.template.spec")
    if kind == "Job":  # its pods may end
        return
    restart = pod_spec.get("restartPolicy")
    if restart != "Always":
        yield not_supported("spec.template.spec.restartPolicy", restart, ("Always",))
    if pod_spec.get("activeDeadlineSeconds") is not None:
        yield forbidden("spec.template.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {kind} is not Supported")


def _counts(spec: JSON) -> Iterator[Cause]:
    return not_negative(spec, "replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")


def not_negative(spec: JSON, *names: str) -> Iterator[Cause]:
    """Of numbers that a spec may have."""
    for name in names:
        if (value := spec.get(name)) is not None and value < 0:
            yield invalid(f"spec.{name}", value, NEGATIVE)


def _strategy(spec: JSON) -> Iterator[Cause]:
    strategy = spec.get("strategy") or {}
    path = "spec.strategy.rollingUpdate"
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "Recreate":
        if rolling is not None:
            yield forbidden(path, "may not be specified when strategy `type` is 'Recreate'")
    elif strategy.get("type") != "RollingUpdate":
        yield not_supported("spec.strategy.type", strategy.get("type"), ("Recreate", "RollingUpdate"))
    elif rolling is not None:
        for name in ("maxUnavailable", "maxSurge"):
            yield from int_or_percent(rolling.get(name), f"{path}.{name}")
        if _is_zero(rolling.get("maxUnavailable")) and _is_zero(rolling.get("maxSurge")):
            why = "may not be 0 when `maxSurge` is 0"
            yield invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), why)
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if deadline is not None and 0 <= deadline <= ready:
        yield invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def int_or_percent(value: int | str | None, path: str) -> Iterator[Cause]:
    if isinstance(value, str):
        if not _PERCENT.fullmatch(value):
            yield invalid(path, value, _PERCENT_WHY)
        elif path.endswith("maxUnavailable") and int(value[:-1]) > 100:
            yield invalid(path, value, "must not be greater than 100%")
    elif value is not None and value < 0:
        yield invalid(path, value, NEGATIVE)


def _is_zero(value: int | str | None) -> bool:
    return value in (0, "0%")


def warnings(tree: JSON) -> list[str]:
    template = (tree.get("spec") or {}).get("template") or {}
    return list(unserved.in_pod_spec(template.get("spec") or {}, "spec.template.spec"))


DEPLOYMENT = Rules(default=default_deployment, validate=validate_deployment, warnings=warnings, counted=True)
REPLICA_SET = Rules(default=default_replica_set, validate=validate, warnings=warnings, counted=True)
STATEFUL_SET = Rules(default=default_stateful_set, validate=validate_stateful_set, warnings=warnings, counted=True)
DAEMON_SET = Rules(default=default_daemon_set, validate=validate, warnings=warnings, counted=True)
ADMITS = (
    (registry.DEPLOYMENT, DEPLOYMENT),
    (registry.REPLICA_SET, REPLICA_SET),
    (registry.STATEFUL_SET, STATEFUL_SET),
    (registry.DAEMON_SET, DAEMON_SET),
)
