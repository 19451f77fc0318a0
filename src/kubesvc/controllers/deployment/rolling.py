"""How large each ReplicaSet of a Deployment shall be next: one step of a rollout, or of a scaling.

Follows the Deployment controller's rolling.go, recreate.go and sync.go. A step first grows the new ReplicaSet as far as
the surge allows; only when nothing grows do old ones shrink, unhealthy pods first, as far as availability allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

from kubesvc.api.apps import Deployment, ReplicaSet, RollingUpdate
from kubesvc.controllers.deployment.template import DESIRED_REPLICAS, MAX_REPLICAS
from kubesvc.controllers.shares import share

Sizes = dict[str, int]  # a ReplicaSet's name -> replicas it shall have; only those that change


def is_rolling(deployment: Deployment) -> bool:
    return deployment.spec.strategy.type != "Recreate"


def fences(deployment: Deployment) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods. Both zero would stand still, so one may then be unavailable."""
    if not is_rolling(deployment):
        return 0, 0
    rolling = deployment.spec.strategy.rolling_update or RollingUpdate()
    surge = share(rolling.max_surge, deployment.spec.replicas, True)
    unavailable = share(rolling.max_unavailable, deployment.spec.replicas, False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, deployment.spec.replicas)


def most_replicas(deployment: Deployment) -> int:
    return deployment.spec.replicas + fences(deployment)[0] if deployment.spec.replicas else 0


def total(sets: Sequence[ReplicaSet]) -> int:
    return sum(rs.spec.replicas for rs in sets)


def oldest_first(sets: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    return sorted(sets, key=lambda rs: (rs.metadata.creation_timestamp or "", rs.name))


def first_size(deployment: Deployment, old: Sequence[ReplicaSet]) -> int:
    """Replicas a new ReplicaSet is created with."""
    return _grown(deployment, 0, total(old))


def _grown(deployment: Deployment, now: int, all_replicas: int) -> int:
    wanted = deployment.spec.replicas
    if not is_rolling(deployment):
        return wanted
    room = wanted + fences(deployment)[0] - all_replicas
    return now + max(0, min(room, wanted - now))


def rolling_step(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> Sizes:
    sets = [*old, new]
    wanted = deployment.spec.replicas
    if new.spec.replicas > wanted:
        return {new.name: wanted}
    if (grown := _grown(deployment, new.spec.replicas, total(sets))) != new.spec.replicas:
        return {new.name: grown}
    least = wanted - fences(deployment)[1]
    new_unavailable = new.spec.replicas - new.status.available_replicas
    may_go = total(sets) - least - new_unavailable
    sizes: Sizes = {}
    for rs in oldest_first(old):  # unhealthy ones first: they serve nobody
        unhealthy = rs.spec.replicas - rs.status.available_replicas
        if rs.spec.replicas and unhealthy > 0 and may_go > 0:
            gone = min(may_go, unhealthy)
            sizes[rs.name] = rs.spec.replicas - gone
            may_go -= gone
    spare = sum(rs.status.available_replicas for rs in sets) - least
    for rs in oldest_first(old):
        size = sizes.get(rs.name, rs.spec.replicas)
        gone = min(size, spare, may_go)
        if gone > 0:
            sizes[rs.name] = size - gone
            spare -= gone
            may_go -= gone
    return sizes


def recreate_step(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet], pods_left: bool) -> Sizes:
    """Old ones go to zero; the new one grows once no pod of theirs is left."""
    shrinking = {rs.name: 0 for rs in old if rs.spec.replicas}
    if shrinking or pods_left or new is None or new.spec.replicas == deployment.spec.replicas:
        return shrinking
    return {new.name: deployment.spec.replicas}


def is_scaling(deployment: Deployment, sets: Sequence[ReplicaSet]) -> bool:
    """Whether `replicas` changed since the ReplicaSets were last sized."""
    desired = [rs.metadata.annotations.get(DESIRED_REPLICAS) for rs in sets if rs.spec.replicas]
    return any(d is not None and d != str(deployment.spec.replicas) for d in desired)


def scaling_step(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> Sizes:
    """Another number of replicas: given to the only active ReplicaSet, or in proportion to several."""
    wanted = deployment.spec.replicas
    active = [rs for rs in [*old, *([new] if new else [])] if rs.spec.replicas]
    if len(active) <= 1:
        latest = active or ([new] if new else oldest_first(old)[-1:])
        return {rs.name: wanted for rs in latest if rs.spec.replicas != wanted}
    if new is not None and _saturated(deployment, new):
        return {rs.name: 0 for rs in old if rs.spec.replicas}
    return _proportional(deployment, active) if is_rolling(deployment) else {}


def _saturated(deployment: Deployment, new: ReplicaSet) -> bool:
    wanted = str(deployment.spec.replicas)
    counts = {new.spec.replicas, new.status.available_replicas}
    return counts == {deployment.spec.replicas} and new.metadata.annotations.get(DESIRED_REPLICAS) == wanted


def _proportional(deployment: Deployment, active: Sequence[ReplicaSet]) -> Sizes:
    to_add = most_replicas(deployment) - total(active)
    newest = list(reversed(oldest_first(active)))
    order = sorted(newest if to_add > 0 else newest[::-1], key=lambda rs: -rs.spec.replicas)
    sizes: Sizes = {}
    added = 0
    for rs in order:
        share = _proportion(deployment, rs, to_add, added) if to_add else 0
        sizes[rs.name] = rs.spec.replicas + share
        added += share
    if order and to_add:
        sizes[order[0].name] = max(0, sizes[order[0].name] + to_add - added)
    return {rs.name: sizes[rs.name] for rs in order if sizes[rs.name] != rs.spec.replicas}


def _proportion(deployment: Deployment, rs: ReplicaSet, to_add: int, added: int) -> int:
    if deployment.spec.replicas == 0:
        share = -rs.spec.replicas
    else:
        before = rs.metadata.annotations.get(MAX_REPLICAS, "")
        base = int(before) if before.isdigit() and int(before) else deployment.status.replicas or rs.spec.replicas
        share = floor(Fraction(rs.spec.replicas * most_replicas(deployment), base) + Fraction(1, 2)) - rs.spec.replicas
    allowed = to_add - added
    return min(share, allowed) if to_add > 0 else max(share, allowed)
