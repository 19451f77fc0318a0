"""One step of a Deployment: ReplicaSets to create, size, annotate and clean up, and the status to write.

template ──hash──► its ReplicaSet (made when there is none)
paused, or replicas changed ──► scale what is there        else ──► a step of the rollout
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kubesvc.api.apps import Deployment, DeploymentStatus, ReplicaSet
from kubesvc.api.labels import DEPLOYMENT_REVISION
from kubesvc.api.meta import JSON
from kubesvc.controllers.deployment import rolling, template
from kubesvc.controllers.deployment.status import deadline_in, is_complete, rollout_status


class Plan(msgspec.Struct):
    """`resize` maps a ReplicaSet's name -> its next size; `annotate` a name -> annotations to set; `revision` is to be
    written on the Deployment when not None; `again` is in how many seconds the rollout is late."""

    status: DeploymentStatus
    create: JSON | None = None
    resize: dict[str, int] = {}
    annotate: dict[str, dict[str, str]] = {}
    min_ready: dict[str, int] = {}
    delete: list[ReplicaSet] = []
    revision: str | None = None
    again: float | None = None


def plan(deployment: Deployment, sets: Sequence[ReplicaSet], now: datetime, *, old_pods_left: bool = False) -> Plan:
    """`sets` are those the Deployment controls; `old_pods_left` whether pods of old ones still run, which only
    Recreate waits for."""
    new = template.with_template(deployment, sets)
    old = [rs for rs in sets if new is None or rs.metadata.uid != new.metadata.uid]
    if deployment.metadata.deletion_timestamp is not None:
        return Plan(rollout_status(deployment, new, sets, None, now))
    create = None
    if new is None and not deployment.spec.paused and not rolling.is_scaling(deployment, old):
        create = _creation(deployment, old, old_pods_left)
    created = create["metadata"]["name"] if create else None
    decided = Plan(rollout_status(deployment, new, sets, created, now), create)
    decided.again = deadline_in(deployment, decided.status, now)
    if create is not None:
        decided.revision = create["metadata"]["annotations"][DEPLOYMENT_REVISION]
    else:
        decided.resize = _step(deployment, new, old, old_pods_left)
    if new is not None:
        _refresh(deployment, new, old, decided)
    for rs in sets:
        _annotate_sizes(deployment, rs, decided)
    if is_complete(deployment, decided.status):
        decided.delete = _leftover(deployment, old)
    return decided


def _creation(deployment: Deployment, old: Sequence[ReplicaSet], old_pods_left: bool) -> JSON | None:
    if not rolling.is_rolling(deployment) and (rolling.total(old) or old_pods_left):
        return None
    most = rolling.most_replicas(deployment)
    annotations = template.annotations_for(deployment, None, old, most)
    return template.new_replica_set(deployment, rolling.first_size(deployment, old), annotations)


def _step(
    deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet], old_pods_left: bool
) -> rolling.Sizes:
    sets = [*old, *([new] if new else [])]
    if deployment.spec.paused or rolling.is_scaling(deployment, sets):
        return rolling.scaling_step(deployment, new, old)
    if not rolling.is_rolling(deployment):
        return rolling.recreate_step(deployment, new, old, old_pods_left)
    return rolling.rolling_step(deployment, new, old) if new else {}


def _refresh(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet], decided: Plan) -> None:
    """The newest revision's annotations and minReadySeconds follow the Deployment; its number shows on it."""
    wanted = template.annotations_for(deployment, new, old, rolling.most_replicas(deployment))
    have = new.metadata.annotations
    ours = {k: v for k, v in wanted.items() if k not in (template.DESIRED_REPLICAS, template.MAX_REPLICAS)}
    if changed := {k: v for k, v in ours.items() if have.get(k) != v}:
        decided.annotate[new.name] = changed
    if new.spec.min_ready_seconds != deployment.spec.min_ready_seconds:
        decided.min_ready[new.name] = deployment.spec.min_ready_seconds
    if deployment.metadata.annotations.get(DEPLOYMENT_REVISION) != wanted[DEPLOYMENT_REVISION]:
        decided.revision = wanted[DEPLOYMENT_REVISION]


def _annotate_sizes(deployment: Deployment, rs: ReplicaSet, decided: Plan) -> None:
    """What is active, or becomes so, carries the sizes it was scaled for: that is how a later scaling is noticed."""
    if not decided.resize.get(rs.name, rs.spec.replicas) and rs.name not in decided.resize:
        return
    wanted = template.sizes(deployment, rolling.most_replicas(deployment))
    if changed := {k: v for k, v in wanted.items() if rs.metadata.annotations.get(k) != v}:
        decided.annotate[rs.name] = decided.annotate.get(rs.name, {}) | changed


def _leftover(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Old revisions beyond the history limit that have no pods, oldest first."""
    idle = [
        rs
        for rs in old
        if rs.spec.replicas == rs.status.replicas == 0
        and rs.metadata.generation <= rs.status.observed_generation
        and rs.metadata.deletion_timestamp is None
    ]
    surplus = len(old) - deployment.spec.revision_history_limit
    return sorted(idle, key=template.revision_of)[: max(0, surplus)]
