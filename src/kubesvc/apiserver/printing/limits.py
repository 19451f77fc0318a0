"""What limits, stores or scales others: budgets, quotas, priorities, autoscalers, volumes and their classes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.api.storage import IS_DEFAULT
from kubesvc.apiserver.printing.columns import AGE, NAME, NONE, Column, Printer, at, name_of, wide
from kubesvc.apiserver.printing.duration import age

_UNSET = "<unset>"
_ACCESS = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _budget(found: JSON, now: datetime) -> list[Any]:
    spec = found.get("spec") or {}
    given = [str(spec[name]) if spec.get(name) is not None else "N/A" for name in ("minAvailable", "maxUnavailable")]
    return [name_of(found), *given, at(found, "status", "disruptionsAllowed") or 0, age(found, now)]


def _quota(found: JSON, now: datetime) -> list[Any]:
    hard, used = at(found, "status", "hard") or at(found, "spec", "hard") or {}, at(found, "status", "used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        into = limits if name.startswith("limits") else requests
        into.append(f"{name}: {used.get(name, '0')}/{hard[name]}")
    return [name_of(found), ", ".join(requests), ", ".join(limits), age(found, now)]


def _limit_range(found: JSON, now: datetime) -> list[Any]:
    return [name_of(found), found["metadata"].get("creationTimestamp") or ""]


def _priority(found: JSON, now: datetime) -> list[Any]:
    policy = found.get("preemptionPolicy") or "PreemptLowerPriority"
    return [name_of(found), found.get("value") or 0, bool(found.get("globalDefault")), age(found, now), policy]


def _autoscaler(found: JSON, now: datetime) -> list[Any]:
    spec, status = found.get("spec") or {}, found.get("status") or {}
    target = spec.get("scaleTargetRef") or {}
    shown = [_metric(metric) for metric in spec.get("metrics") or ()]
    return [
        name_of(found),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        ", ".join(shown[:2]) + (f" + {len(shown) - 2} more..." if len(shown) > 2 else "") or NONE,
        str(spec["minReplicas"]) if spec.get("minReplicas") is not None else _UNSET,
        spec.get("maxReplicas") or 0,
        status.get("currentReplicas") or 0,
        age(found, now),
    ]


def _metric(metric: JSON) -> str:
    """What a metric is to be. Nothing here measures one, so what it is now is unknown."""
    kind = metric.get("type", "")
    source = metric.get(kind[:1].lower() + kind[1:]) or {}
    target = source.get("target") or {}
    name = f"{source['name']}: " if kind in ("Resource", "ContainerResource") and source.get("name") else ""
    if target.get("averageUtilization") is not None:
        return f"{name}<unknown>/{target['averageUtilization']}%"
    value = target.get("averageValue") or target.get("value") or "<auto>"
    return f"{name}<unknown>/{value}" + (" (avg)" if target.get("averageValue") and not name else "")


def _modes(found: JSON) -> str:
    return ",".join(_ACCESS.get(mode, mode) for mode in at(found, "spec", "accessModes") or ())


def _volume(found: JSON, now: datetime) -> list[Any]:
    spec, status = found.get("spec") or {}, found.get("status") or {}
    claim = spec.get("claimRef") or {}
    phase = status.get("phase") or ""
    return [
        name_of(found),
        at(spec, "capacity", "storage") or "",
        _modes(found),
        spec.get("persistentVolumeReclaimPolicy") or "",
        "Terminating" if found["metadata"].get("deletionTimestamp") else phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or _UNSET,
        status.get("reason") or "",
        age(found, now),
        spec.get("volumeMode") or _UNSET,
    ]


def _claim(found: JSON, now: datetime) -> list[Any]:
    spec, status = found.get("spec") or {}, found.get("status") or {}
    bound = bool(spec.get("volumeName"))
    phase = status.get("phase") or ""
    return [
        name_of(found),
        "Terminating" if found["metadata"].get("deletionTimestamp") else phase,
        spec.get("volumeName") or "",
        (at(status, "capacity", "storage") or "") if bound else "",
        ",".join(_ACCESS.get(mode, mode) for mode in status.get("accessModes") or ()) if bound else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or _UNSET,
        age(found, now),
        spec.get("volumeMode") or _UNSET,
    ]


def _storage_class(found: JSON, now: datetime) -> list[Any]:
    annotations = found["metadata"].get("annotations") or {}
    default = any(annotations.get(key) == "true" for key in IS_DEFAULT)
    return [
        name_of(found) + (" (default)" if default else ""),
        found.get("provisioner") or "",
        found.get("reclaimPolicy") or "Delete",
        found.get("volumeBindingMode") or "Immediate",
        bool(found.get("allowVolumeExpansion")),
        age(found, now),
    ]


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


def _integers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "integer") for name in names)


_VOLUME = ("Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim", "StorageClass", "VolumeAttributesClass",
           "Reason")  # fmt: skip
_CLAIM = ("Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass")
_CLASS = ("Provisioner", "ReclaimPolicy", "VolumeBindingMode")
_AUTOSCALER = (*_columns("Reference", "Targets", "MinPods"), *_integers("MaxPods", "Replicas"))

PRINTERS = {
    (kind.group, kind.plural): Printer(columns, cells)
    for kind, columns, cells in (
        (
            registry.POD_DISRUPTION_BUDGET,
            (NAME, *_columns("Min Available", "Max Unavailable"), *_integers("Allowed Disruptions"), AGE),
            _budget,
        ),
        (registry.RESOURCE_QUOTA, (NAME, *_columns("Request", "Limit"), AGE), _quota),
        (registry.LIMIT_RANGE, (NAME, *_columns("Created At")), _limit_range),
        (
            registry.PRIORITY_CLASS,
            (NAME, *_integers("Value"), Column("Global-Default", "boolean"), AGE, *_columns("PreemptionPolicy")),
            _priority,
        ),
        (registry.HORIZONTAL_POD_AUTOSCALER, (NAME, *_AUTOSCALER, AGE), _autoscaler),
        (registry.PERSISTENT_VOLUME, (NAME, *_columns(*_VOLUME), AGE, *wide("VolumeMode")), _volume),
        (registry.PERSISTENT_VOLUME_CLAIM, (NAME, *_columns(*_CLAIM), AGE, *wide("VolumeMode")), _claim),
        (
            registry.STORAGE_CLASS,
            (NAME, *_columns(*_CLASS), Column("AllowVolumeExpansion", "boolean"), AGE),
            _storage_class,
        ),
    )
}
