"""A Deployment's status: the counts and the conditions that `kubectl rollout status` and `kubectl wait` read.

Follows sync.go and progress.go of the Deployment controller, words included. A condition keeps its lastTransitionTime
while its status stays, and is not written again while neither status nor reason changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from kubesvc.api.apps import Deployment, DeploymentStatus, ReplicaSet
from kubesvc.api.meta import JSON, Condition, format_time, parse_time
from kubesvc.controllers.deployment.rolling import fences, total
from kubesvc.controllers.readiness import condition

NEW = "NewReplicaSetCreated"
FOUND = "FoundNewReplicaSet"
UPDATED = "ReplicaSetUpdated"
DONE = "NewReplicaSetAvailable"
LATE = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
RESUMED = "DeploymentResumed"


def put(
    conditions: Sequence[Condition], type_: str, status: str, reason: str, message: str, now: datetime
) -> list[Condition]:
    """`conditions` with this one in place of its predecessor."""
    before = condition(conditions, type_)
    if before is not None and (before.status, before.reason) == (status, reason):
        return list(conditions)
    since = before.last_transition_time if before is not None and before.status == status else format_time(now)
    made = Condition(type_, status, reason, message, last_transition_time=since, last_update_time=format_time(now))
    return [*(c for c in conditions if c.type != type_), made]


def counts(deployment: Deployment, new: ReplicaSet | None, sets: Sequence[ReplicaSet]) -> DeploymentStatus:
    """The status with fresh counts and the conditions as they were."""
    available = sum(rs.status.available_replicas for rs in sets)
    return DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=sum(rs.status.replicas for rs in sets),
        updated_replicas=new.status.replicas if new else 0,
        ready_replicas=sum(rs.status.ready_replicas for rs in sets),
        available_replicas=available,
        unavailable_replicas=max(0, total(sets) - available),
        collision_count=deployment.status.collision_count,
        conditions=deployment.status.conditions,
    )


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    wanted = deployment.spec.replicas
    same = status.updated_replicas == status.replicas == status.available_replicas == wanted
    return same and status.observed_generation >= deployment.metadata.generation


def _is_progressing(old: DeploymentStatus, new: DeploymentStatus) -> bool:
    return (
        new.updated_replicas > old.updated_replicas
        or new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        or new.ready_replicas > old.ready_replicas
        or new.available_replicas > old.available_replicas
    )


def deadline_in(deployment: Deployment, status: DeploymentStatus, now: datetime) -> float | None:
    """Seconds until the rollout under way is late, at most 0 when it is; None when none is under way."""
    progressing = condition(status.conditions, "Progressing")
    if progressing is None or progressing.reason in (DONE, LATE, PAUSED) or not progressing.last_update_time:
        return None
    due = parse_time(progressing.last_update_time) + timedelta(seconds=deployment.spec.progress_deadline_seconds)
    return (due - now).total_seconds()


def rollout_status(
    deployment: Deployment, new: ReplicaSet | None, sets: Sequence[ReplicaSet], created: str | None, now: datetime
) -> DeploymentStatus:
    """The whole status. `created` names a ReplicaSet made in this very pass."""
    status = counts(deployment, new, sets)
    conditions = _progress(deployment, status, new, created, now)
    if status.available_replicas >= deployment.spec.replicas - fences(deployment)[1]:
        text = "Deployment has minimum availability."
        conditions = put(conditions, "Available", "True", "MinimumReplicasAvailable", text, now)
    else:
        text = "Deployment does not have minimum availability."
        conditions = put(conditions, "Available", "False", "MinimumReplicasUnavailable", text, now)
    conditions = [c for c in conditions if c.type != "ReplicaFailure"]
    failed = [
        c for rs in ([new] if new else []) + list(sets) for c in rs.status.conditions if c.type == "ReplicaFailure"
    ]
    if failed:
        conditions = put(conditions, "ReplicaFailure", failed[0].status, failed[0].reason, failed[0].message, now)
        before = condition(deployment.status.conditions, "ReplicaFailure")
        if before is not None and (before.reason, before.message) == (failed[0].reason, failed[0].message):
            conditions = [before if c.type == "ReplicaFailure" else c for c in conditions]
    return msgspec.structs.replace(status, conditions=conditions)


def _progress(
    deployment: Deployment, status: DeploymentStatus, new: ReplicaSet | None, created: str | None, now: datetime
) -> list[Condition]:
    conditions = list(deployment.status.conditions)
    before = condition(conditions, "Progressing")
    if deployment.spec.paused:
        if before is None or before.reason != PAUSED:
            conditions = put(conditions, "Progressing", "Unknown", PAUSED, "Deployment is paused", now)
        return conditions
    if before is not None and before.reason == PAUSED:
        conditions = put(conditions, "Progressing", "Unknown", RESUMED, "Deployment is resumed", now)
    if created is not None:
        return put(conditions, "Progressing", "True", NEW, f'Created new replica set "{created}"', now)
    if new is not None and before is None:
        conditions = put(conditions, "Progressing", "True", FOUND, f'Found new replica set "{new.name}"', now)
    before = condition(conditions, "Progressing")
    if before is not None and before.reason == DONE and status.replicas == status.updated_replicas:
        return conditions
    what = f'ReplicaSet "{new.name}"' if new else f'Deployment "{deployment.name}"'
    if is_complete(deployment, status):
        return put(conditions, "Progressing", "True", DONE, f"{what} has successfully progressed.", now)
    if _is_progressing(deployment.status, status):
        kept = [c for c in conditions if c.type != "Progressing"]
        since = before.last_transition_time if before and before.status == "True" else format_time(now)
        text = f"{what} is progressing."
        made = Condition("Progressing", "True", UPDATED, text, since, last_update_time=format_time(now))
        return [*kept, made]
    late = deadline_in(deployment, msgspec.structs.replace(status, conditions=conditions), now)
    if late is not None and late <= 0:
        return put(conditions, "Progressing", "False", LATE, f"{what} has timed out progressing.", now)
    return conditions


def patch(status: DeploymentStatus) -> JSON:
    """Zero counts are left out on the wire, as upstream leaves them."""
    tree: JSON = {
        "observedGeneration": status.observed_generation or None,
        "replicas": status.replicas or None,
        "updatedReplicas": status.updated_replicas or None,
        "readyReplicas": status.ready_replicas or None,
        "availableReplicas": status.available_replicas or None,
        "unavailableReplicas": status.unavailable_replicas or None,
        "collisionCount": status.collision_count or None,
        "conditions": [msgspec.to_builtins(c) for c in status.conditions],
    }
    return {"status": tree}
