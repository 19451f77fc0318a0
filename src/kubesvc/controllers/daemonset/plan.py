"""The next step of a DaemonSet: where to create pods, which to delete, what the status says. Pure.

Follows daemon_controller.go and update.go. Without surge an old pod is deleted and the node gets a new one afterwards;
with surge the new one comes first, and the old goes once it is available.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from kubesvc.api.apps import DaemonSet, DaemonSetStatus, RollingDaemonSet
from kubesvc.api.endpoints import pod_is_finished, pod_is_ready
from kubesvc.api.meta import JSON
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.controllers.daemonset.eligibility import may_stay, should_start
from kubesvc.controllers.readiness import available_in
from kubesvc.controllers.shares import share

HASH = "controller-revision-hash"  # a pod's label


class Plan(msgspec.Struct):
    """`create` names nodes; `finished` are pods whose containers ended and that are replaced."""

    status: DaemonSetStatus
    create: list[str] = []
    delete: list[Pod] = []
    finished: list[Pod] = []
    again: float | None = None


class _Place(msgspec.Struct, frozen=True):
    """A node where a pod may be, and the pods there that stay: of this revision, and of older ones."""

    node: str
    new: Pod | None
    old: Pod | None
    spare: tuple[Pod, ...]  # more than one of a kind


def plan(ds: DaemonSet, pods: Sequence[Pod], nodes: Iterable[Node], template: Pod, hash_: str, now: datetime) -> Plan:
    """`pods` are those the set controls, `template` what it makes, `hash_` the newest revision's."""
    nodes = list(nodes)
    start = {n.name for n in nodes if should_start(template, n)}
    stay = {n.name for n in nodes if n.name in start or may_stay(template, n)}
    on: dict[str, list[Pod]] = {}
    for pod in pods:
        on.setdefault(pod.spec.node_name, []).append(pod)
    decided = Plan(_status(ds, on, start, nodes, hash_, now))
    waits = [w for p in pods if (w := available_in(p, ds.spec.min_ready_seconds, now))]
    decided.again = min(waits, default=None)
    if ds.metadata.deletion_timestamp is not None:
        return decided
    known = {n.name for n in nodes}
    for node, there in on.items():
        if node in known and node not in stay:
            decided.delete += [p for p in there if p.metadata.deletion_timestamp is None]
    places = [_place(name, on.get(name, ()), hash_, decided) for name in sorted(stay)]
    surge, unavailable = fences(ds, decided.status.desired_number_scheduled)
    _manage(ds, places, start, surge, decided, now)
    if ds.spec.update_strategy.type == "RollingUpdate":
        if surge:
            _surge(ds, places, start, surge, decided, now)
        else:
            _replace(ds, places, unavailable, decided, now)
    return decided


def fences(ds: DaemonSet, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; both zero would stand still."""
    if ds.spec.update_strategy.type != "RollingUpdate":
        return 0, 0
    rolling = ds.spec.update_strategy.rolling_update or RollingDaemonSet()
    surge, unavailable = share(rolling.max_surge, desired, True), share(rolling.max_unavailable, desired, True)
    return surge, unavailable if surge or unavailable else 1


def _place(name: str, pods: Iterable[Pod], hash_: str, decided: Plan) -> _Place:
    found: dict[bool, list[Pod]] = {True: [], False: []}
    for pod in sorted(pods, key=lambda p: (p.metadata.creation_timestamp or "", p.name)):
        if pod_is_finished(pod):
            if pod.metadata.deletion_timestamp is None:
                decided.finished.append(pod)
        else:
            found[pod.metadata.labels.get(HASH) == hash_].append(pod)
    new, old = found[True], found[False]
    spare = tuple(p for p in (*new[1:], *old[1:]) if p.metadata.deletion_timestamp is None)
    return _Place(name, new[0] if new else None, old[0] if old else None, spare)


def _manage(ds: DaemonSet, places: Iterable[_Place], start: set[str], surge: int, decided: Plan, now: datetime) -> None:
    """One pod where there is none; of two the older goes when the newer is there to take its place."""
    ending = {p.spec.node_name for p in decided.finished}
    for place in places:
        if place.new is None and place.old is None:
            if place.node in start and place.node not in ending:
                decided.create.append(place.node)
            continue
        decided.delete += place.spare
        if place.new is None or place.old is None or _going(place.old):
            continue
        if not surge or _available(ds, place.new, now) or not _available(ds, place.old, now):
            decided.delete.append(place.old)


def _replace(ds: DaemonSet, places: Sequence[_Place], most: int, decided: Plan, now: datetime) -> None:
    room = most
    candidates: list[Pod] = []
    for place in places:
        pod = place.new or place.old
        if pod is None or not _available(ds, pod, now):
            room -= 1
        if place.new is not None or place.old is None or _going(place.old):
            continue
        if _available(ds, place.old, now):
            candidates.append(place.old)
        else:
            decided.delete.append(place.old)  # it serves nobody
    decided.delete += candidates[: max(0, room)]


def _surge(ds: DaemonSet, places: Sequence[_Place], start: set[str], most: int, decided: Plan, now: datetime) -> None:
    room = most - sum(place.new is not None and place.old is not None for place in places)
    candidates: list[str] = []
    for place in places:
        if place.new is not None or place.old is None or place.node not in start:
            continue
        if _available(ds, place.old, now):
            candidates.append(place.node)
        else:
            decided.create.append(place.node)  # nobody is doubled up
    decided.create += candidates[: max(0, room)]


def _going(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None


def _available(ds: DaemonSet, pod: Pod, now: datetime) -> bool:
    return not _going(pod) and available_in(pod, ds.spec.min_ready_seconds, now) == 0


def _status(
    ds: DaemonSet, on: Mapping[str, Sequence[Pod]], start: set[str], nodes: Sequence[Node], hash_: str, now: datetime
) -> DaemonSetStatus:
    ready = available = current = updated = 0
    for name in start:
        alive = [p for p in on.get(name, ()) if not pod_is_finished(p)]
        if not alive:
            continue
        current += 1
        ready += any(pod_is_ready(p) for p in alive)
        available += any(_available(ds, p, now) for p in alive)
        updated += all(p.metadata.labels.get(HASH) == hash_ for p in alive)  # a surge ends with the old pod's end
    return DaemonSetStatus(
        observed_generation=ds.metadata.generation,
        desired_number_scheduled=len(start),
        current_number_scheduled=current,
        number_misscheduled=sum(bool(on.get(n.name)) for n in nodes if n.name not in start),
        number_ready=ready,
        number_available=available,
        number_unavailable=len(start) - available,
        updated_number_scheduled=updated,
        collision_count=ds.status.collision_count,
    )


def status_patch(status: DaemonSetStatus) -> JSON:
    """Zero counts are left out on the wire where upstream leaves them out."""
    return {
        "status": {
            "observedGeneration": status.observed_generation or None,
            "desiredNumberScheduled": status.desired_number_scheduled,
            "currentNumberScheduled": status.current_number_scheduled,
            "numberMisscheduled": status.number_misscheduled,
            "numberReady": status.number_ready,
            "numberAvailable": status.number_available or None,
            "numberUnavailable": status.number_unavailable or None,
            "updatedNumberScheduled": status.updated_number_scheduled or None,
            "collisionCount": status.collision_count or None,
        }
    }
