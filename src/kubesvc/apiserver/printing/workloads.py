"""Deployments, ReplicaSets and what came before them, StatefulSets, DaemonSets, Jobs and CronJobs, revisions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubesvc.api import registry
from kubesvc.api.meta import JSON, parse_time
from kubesvc.apiserver.printing.columns import (
    AGE,
    NAME,
    NONE,
    Column,
    Printer,
    at,
    containers_and_images,
    format_labels,
    format_selector,
    name_of,
    wide,
)
from kubesvc.apiserver.printing.duration import age, human, since


def _number(tree: JSON, *path: str) -> int:
    return int(at(tree, *path) or 0)


def _wide(tree: JSON) -> list[Any]:
    return [*containers_and_images(at(tree, "spec", "template")), format_selector(at(tree, "spec", "selector"))]


def _deployment(found: JSON, now: datetime) -> list[Any]:
    return [
        name_of(found),
        f"{_number(found, 'status', 'readyReplicas')}/{_number(found, 'spec', 'replicas')}",
        _number(found, "status", "updatedReplicas"),
        _number(found, "status", "availableReplicas"),
        age(found, now),
        *_wide(found),
    ]


def _replica_set(found: JSON, now: datetime) -> list[Any]:
    return [
        name_of(found),
        _number(found, "spec", "replicas"),
        _number(found, "status", "replicas"),
        _number(found, "status", "readyReplicas"),
        age(found, now),
        *_wide(found),
    ]


def _stateful_set(found: JSON, now: datetime) -> list[Any]:
    ready = f"{_number(found, 'status', 'readyReplicas')}/{_number(found, 'spec', 'replicas')}"
    return [name_of(found), ready, age(found, now), *containers_and_images(at(found, "spec", "template"))]


def _daemon_set(found: JSON, now: datetime) -> list[Any]:
    numbers = [
        _number(found, "status", field)
        for field in (
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        )
    ]
    selector = format_labels(at(found, "spec", "template", "spec", "nodeSelector"))
    return [name_of(found), *numbers, selector, age(found, now), *_wide(found)]


_JOB_STATES = ("Complete", "Failed", "Terminating", "Suspended", "FailureTarget", "SuccessCriteriaMet")


def _job(found: JSON, now: datetime) -> list[Any]:
    status = found.get("status") or {}
    wanted = at(found, "spec", "completions")
    succeeded = status.get("succeeded") or 0
    at_once = at(found, "spec", "parallelism") or 0
    completions = f"{succeeded}/{wanted}" if wanted is not None else f"{succeeded}/1"
    if wanted is None and at_once > 1:
        completions += f" of {at_once}"
    duration = ""
    if started := status.get("startTime"):
        ended = parse_time(status["completionTime"]) if status.get("completionTime") else now
        duration = human(ended - parse_time(started))
    conditions = {c.get("type"): c.get("status") == "True" for c in status.get("conditions") or ()}
    conditions["Terminating"] = "deletionTimestamp" in found["metadata"]
    state = next((state for state in _JOB_STATES if conditions.get(state)), "Running")
    return [name_of(found), state, completions, duration, age(found, now), *_wide(found)]


def _replication_controller(found: JSON, now: datetime) -> list[Any]:
    cells = _replica_set(found, now)
    return [*cells[:-1], format_labels(at(found, "spec", "selector"))]


def _cron_job(found: JSON, now: datetime) -> list[Any]:
    spec, status = found.get("spec") or {}, found.get("status") or {}
    job = at(spec, "jobTemplate", "spec") or {}
    return [
        name_of(found),
        spec.get("schedule") or "",
        spec.get("timeZone") or NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or ()),
        since(status["lastScheduleTime"], now) if status.get("lastScheduleTime") else NONE,
        age(found, now),
        *containers_and_images(job.get("template")),
        format_selector(job.get("selector")),
    ]


def _revision(found: JSON, now: datetime) -> list[Any]:
    owner: JSON = next((o for o in found["metadata"].get("ownerReferences") or () if o.get("controller")), {})
    group = owner.get("apiVersion", "").rpartition("/")[0]
    kind = ".".join(filter(None, (owner.get("kind", "").lower(), group)))
    return [name_of(found), f"{kind}/{owner['name']}" if owner else NONE, found.get("revision") or 0, age(found, now)]


def _strings(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


def _integers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "integer") for name in names)


_WIDE = wide("Containers", "Images", "Selector")

PRINTERS = {
    (kind.group, kind.plural): printer
    for kind, printer in (
        (
            registry.DEPLOYMENT,
            Printer((NAME, *_strings("Ready"), *_strings("Up-to-date", "Available"), AGE, *_WIDE), _deployment),
        ),
        (registry.REPLICA_SET, Printer((NAME, *_integers("Desired", "Current", "Ready"), AGE, *_WIDE), _replica_set)),
        (registry.STATEFUL_SET, Printer((NAME, *_strings("Ready"), AGE, *wide("Containers", "Images")), _stateful_set)),
        (
            registry.DAEMON_SET,
            Printer(
                (
                    NAME,
                    *_integers("Desired", "Current", "Ready", "Up-to-date", "Available"),
                    *_strings("Node Selector"),
                    AGE,
                    *_WIDE,
                ),
                _daemon_set,
            ),
        ),
        (
            registry.REPLICATION_CONTROLLER,
            Printer((NAME, *_integers("Desired", "Current", "Ready"), AGE, *_WIDE), _replication_controller),
        ),
        (
            registry.CRON_JOB,
            Printer(
                (
                    NAME,
                    *_strings("Schedule", "Timezone", "Suspend"),
                    *_integers("Active"),
                    *_strings("Last Schedule"),
                    AGE,
                    *_WIDE,
                ),
                _cron_job,
            ),
        ),
        (
            registry.CONTROLLER_REVISION,
            Printer((NAME, *_strings("Controller"), *_integers("Revision"), AGE), _revision),
        ),
        (registry.JOB, Printer((NAME, *_strings("Status", "Completions", "Duration"), AGE, *_WIDE), _job)),
    )
}
