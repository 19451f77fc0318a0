"""The rules of what limits others: disruption budgets, autoscalers, quotas, ranges of limits, priorities.

Source: pkg/apis/{policy,autoscaling,scheduling}/validation, pkg/apis/autoscaling/v2/defaults.go, ValidateResourceQuota,
ValidateLimitRange.
"""

from __future__ import annotations

from typing import Any

from kubesvc.api import registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver import autoscaling
from kubesvc.apiserver.admission import metadata
from kubesvc.apiserver.admission.causes import IMMUTABLE, forbidden, invalid, not_supported, required
from kubesvc.apiserver.admission.containers import NEGATIVE
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules
from kubesvc.apiserver.admission.workloads import int_or_percent

_HIGHEST = 1_000_000_000
_LIMIT_TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_SCOPES = ("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating")


def validate_budget(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec = new.get("spec") or {}
    given = [name for name in ("minAvailable", "maxUnavailable") if spec.get(name) is not None]
    causes: list[Cause] = []
    if len(given) == 2:
        causes.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for name in given:
        causes += int_or_percent(spec[name], f"spec.{name}")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy not in (None, "AlwaysAllow", "IfHealthyBudget"):
        causes.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget")))
    return causes + metadata.validate_selector(spec.get("selector"), "spec.selector")


def default_autoscaler(tree: JSON) -> None:
    """Of either version: v1 has no metrics, what it means by none is said when it becomes v2."""
    spec = tree.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics") and tree.get("apiVersion") != registry.HORIZONTAL_POD_AUTOSCALER_V1.api_version:
        spec["metrics"] = [autoscaling.cpu(autoscaling.DEFAULT_CPU)]


def validate_autoscaler(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec = new.get("spec") or {}
    least, most = spec.get("minReplicas") or 0, spec.get("maxReplicas") or 0
    causes: list[Cause] = []
    if least < 1:
        causes.append(invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        causes.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    elif most < least:
        causes.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    percent = spec.get("targetCPUUtilizationPercentage")
    if percent is not None and percent < 1:
        causes.append(invalid("spec.targetCPUUtilizationPercentage", percent, "must be greater than 0"))
    target = spec.get("scaleTargetRef") or {}
    causes += [required(f"spec.scaleTargetRef.{name}") for name in ("kind", "name") if not target.get(name)]
    return causes


def validate_quota(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = [
        invalid(f"spec.hard[{name}]", value, NEGATIVE)
        for name, value in (spec.get("hard") or {}).items()
        if str(value).startswith("-")
    ]
    for scope in spec.get("scopes") or ():
        if scope not in _SCOPES:
            causes.append(invalid("spec.scopes", spec["scopes"], f"unsupported scope: {scope}"))
    if old is not None and context.subresource != "status":
        before = (old.get("spec") or {}).get("scopes") or []
        if (spec.get("scopes") or []) != before:
            causes.append(invalid("spec.scopes", spec.get("scopes") or [], IMMUTABLE))
    return causes


def default_limit_range(tree: JSON) -> None:
    """A container's default limit is its highest, its default request that default, or else its lowest."""
    for item in (tree.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            limits = (item.get("max") or {}) | (item.get("default") or {})
            requests = (item.get("min") or {}) | limits | (item.get("defaultRequest") or {})
            if limits:
                item["default"] = limits
            if requests:
                item["defaultRequest"] = requests


def validate_limit_range(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, item in enumerate((new.get("spec") or {}).get("limits") or ()):
        path, kind = f"spec.limits[{index}]", item.get("type") or ""
        if kind not in _LIMIT_TYPES and "/" not in kind:
            causes.append(invalid(f"{path}.type", kind, "must be a standard limit type or fully qualified"))
        if kind in seen:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{kind}"', f"{path}.type"))
        seen.add(kind)
        if kind == "Pod":
            for name in ("default", "defaultRequest"):
                if item.get(name):
                    why = "may not be specified when `type` is 'Pod'"
                    causes.append(forbidden(f"{path}.{name}", why))
    return causes


def default_priority(tree: JSON) -> None:
    if not tree.get("preemptionPolicy"):
        tree["preemptionPolicy"] = "PreemptLowerPriority"


def prepare_priority(new: JSON, old: JSON | None, context: Context) -> None:
    new["metadata"]["generation"] = 1 if old is None else old["metadata"].get("generation", 1)


def validate_priority(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    name, value = new["metadata"].get("name") or "", new.get("value") or 0
    causes: list[Cause] = []
    if name.startswith("system-"):
        why = "priority class names with 'system-' prefix are reserved for system use only. error: %s is not a known "
        causes.append(forbidden("metadata.name", (why + "system priority class") % name))
    elif value > _HIGHEST:
        why = f"maximum allowed value of a user defined priority is {_HIGHEST}"
        causes.append(forbidden("value", why))
    policy = new.get("preemptionPolicy")
    if policy not in ("Never", "PreemptLowerPriority"):
        causes.append(not_supported("preemptionPolicy", policy, ("Never", "PreemptLowerPriority")))
    if old is not None:
        causes += _unchanged(new, old)
    return causes


def _unchanged(new: JSON, old: JSON) -> list[Cause]:
    def value(tree: JSON, name: str) -> Any:
        return tree.get(name) or (0 if name == "value" else None)

    causes: list[Cause] = []
    if value(new, "value") != value(old, "value"):
        causes.append(forbidden("value", "may not be changed in an update."))
    if value(new, "preemptionPolicy") != value(old, "preemptionPolicy"):
        causes.append(invalid("preemptionPolicy", new.get("preemptionPolicy"), IMMUTABLE))
    return causes


ADMITS = (
    (registry.POD_DISRUPTION_BUDGET, Rules(validate=validate_budget, counted=True)),
    (registry.HORIZONTAL_POD_AUTOSCALER, Rules(default=default_autoscaler, validate=validate_autoscaler)),
    (registry.RESOURCE_QUOTA, Rules(validate=validate_quota)),
    (registry.LIMIT_RANGE, Rules(default=default_limit_range, validate=validate_limit_range)),
    (registry.PRIORITY_CLASS, Rules(default=default_priority, prepare=prepare_priority, validate=validate_priority)),
)
