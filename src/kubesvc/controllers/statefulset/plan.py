"""The next step of a StatefulSet: which pods to create, which to delete, what the status says. Pure.

Follows stateful_set_control.go. In order: every pod waits for the one before it to be running, ready and available, and
the last goes first; podManagementPolicy Parallel doesn't wait to create and to delete. An update replaces pods from the
last ordinal down to the partition, and waits for each either way.

    ordinals    start … start+replicas-1  replicas: created upwards        beyond: condemned, deleted downwards
    revisions   < partition: the current one        >= partition: the update's
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kubesvc.api.apps import RollingStatefulSet, StatefulSet, StatefulSetStatus
from kubesvc.api.endpoints import pod_is_finished, pod_is_ready
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.controllers.readiness import available_in
from kubesvc.controllers.shares import share
from kubesvc.controllers.statefulset.identity import ordinal_of, revision_of


class Plan(msgspec.Struct, frozen=True):
    """`create` are ordinals, each with whether it is of the update's revision; `again` is in how many seconds a ready
    pod becomes available, if the next step waits for that."""

    status: StatefulSetStatus
    create: tuple[tuple[int, bool], ...] = ()
    delete: tuple[Pod, ...] = ()
    again: float | None = None


def plan(sts: StatefulSet, pods: Sequence[Pod], current: str, update: str, now: datetime) -> Plan:
    """`pods` are those the set controls; `current` and `update` the names of two revisions."""
    status = _status(sts, pods, current, update, now)
    if sts.metadata.deletion_timestamp is not None:
        return Plan(status)
    found = {o: p for p in pods if (o := ordinal_of(sts, p.name)) is not None}
    start = sts.spec.ordinals.start
    wanted = range(start, start + sts.spec.replicas)
    condemned = sorted((o for o in found if o not in wanted), reverse=True)
    waits = [w for p in pods if (w := available_in(p, sts.spec.min_ready_seconds, now))]
    again = min(waits, default=None)
    create, delete, settled = _grow(sts, found, wanted, now)
    if settled:
        shrunk, settled = _shrink(sts, found, condemned)
        delete += shrunk
    if settled and sts.spec.update_strategy.type == "RollingUpdate":
        delete += _replace(sts, found, wanted, update, now)
    return Plan(status, tuple((o, _of_update(sts, o)) for o in create), tuple(delete), again)


def in_order(sts: StatefulSet) -> bool:
    return sts.spec.pod_management_policy != "Parallel"


def partition(sts: StatefulSet) -> int:
    return _rolling(sts).partition if sts.spec.update_strategy.type == "RollingUpdate" else 0


def _rolling(sts: StatefulSet) -> RollingStatefulSet:
    return sts.spec.update_strategy.rolling_update or RollingStatefulSet()


def _of_update(sts: StatefulSet, ordinal: int) -> bool:
    return ordinal >= sts.spec.ordinals.start + partition(sts)


def _healthy(pod: Pod) -> bool:
    return pod.status.phase == "Running" and pod_is_ready(pod) and pod.metadata.deletion_timestamp is None


def _available(sts: StatefulSet, pod: Pod, now: datetime) -> bool:
    return _healthy(pod) and available_in(pod, sts.spec.min_ready_seconds, now) == 0


def _grow(
    sts: StatefulSet, found: dict[int, Pod], wanted: Sequence[int], now: datetime
) -> tuple[list[int], list[Pod], bool]:
    """Ordinals to create, finished pods to replace, and whether the step may go on to what is beyond."""
    create: list[int] = []
    delete: list[Pod] = []
    for ordinal in wanted:
        pod = found.get(ordinal)
        if pod is None:
            create.append(ordinal)
        elif pod_is_finished(pod) and pod.metadata.deletion_timestamp is None:
            delete.append(pod)
        elif _available(sts, pod, now) or not in_order(sts):
            continue
        if in_order(sts):
            return create, delete, False
    return create, delete, True


def _shrink(sts: StatefulSet, found: dict[int, Pod], condemned: Sequence[int]) -> tuple[list[Pod], bool]:
    """Pods beyond the last ordinal; in order, one at a time, and only a healthy one or the lowest that isn't."""
    delete: list[Pod] = []
    unhealthy = [o for o in sorted(condemned) if not _healthy(found[o])]
    for ordinal in condemned:
        pod = found[ordinal]
        going = pod.metadata.deletion_timestamp is not None
        if not in_order(sts):
            delete += [] if going else [pod]
            continue
        if going or (not _healthy(pod) and ordinal != unhealthy[0]):
            return [], False
        return [pod], False
    return delete, True


def _replace(sts: StatefulSet, found: dict[int, Pod], wanted: Sequence[int], update: str, now: datetime) -> list[Pod]:
    """Pods of older revisions, from the last ordinal down, as many at once as may be unavailable (one)."""
    most = _rolling(sts).max_unavailable
    room = 1 if most is None else max(1, share(most, sts.spec.replicas, True))
    room -= sum(1 for o in wanted if o not in found or not _available(sts, found[o], now))
    delete: list[Pod] = []
    for ordinal in reversed(wanted):
        pod = found.get(ordinal)
        if pod is None or not _of_update(sts, ordinal) or pod.metadata.deletion_timestamp is not None:
            continue
        if revision_of(pod) == update:
            continue
        if not _available(sts, pod, now):
            return [*delete, pod]  # it serves nobody: replacing it takes nothing away
        if room <= 0:
            break
        delete.append(pod)
        room -= 1
    return delete


def _status(sts: StatefulSet, pods: Sequence[Pod], current: str, update: str, now: datetime) -> StatefulSetStatus:
    created = [p for p in pods if p.status.phase]
    staying = [p for p in created if p.metadata.deletion_timestamp is None]
    ready = [p for p in created if p.status.phase == "Running" and pod_is_ready(p)]
    updated = sum(revision_of(p) == update for p in staying)
    wanted = sts.spec.replicas
    done = sts.spec.update_strategy.type == "RollingUpdate" and updated == len(created) == len(ready) == wanted
    if done:
        current = update
    return StatefulSetStatus(
        observed_generation=sts.metadata.generation,
        replicas=len(created),
        ready_replicas=len(ready),
        available_replicas=sum(available_in(p, sts.spec.min_ready_seconds, now) == 0 for p in ready),
        current_replicas=sum(revision_of(p) == current for p in staying),
        updated_replicas=updated,
        current_revision=current,
        update_revision=update,
        collision_count=sts.status.collision_count,
    )


def status_patch(status: StatefulSetStatus) -> JSON:
    """Zero counts are left out on the wire where upstream leaves them out."""
    return {
        "status": {
            "observedGeneration": status.observed_generation or None,
            "replicas": status.replicas,
            "readyReplicas": status.ready_replicas or None,
            "availableReplicas": status.available_replicas,
            "currentReplicas": status.current_replicas or None,
            "updatedReplicas": status.updated_replicas or None,
            "currentRevision": status.current_revision or None,
            "updateRevision": status.update_revision or None,
            "collisionCount": status.collision_count,
        }
    }
