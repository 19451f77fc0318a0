"""What a PodDisruptionBudget allows, from its pods and the scale of what controls them. Pure.

    pods healthy now ─ pods that must be ─► evictions allowed; those granted but not yet seen aren't counted as healthy

Follows pkg/controller/disruption.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from kubesvc.api.endpoints import pod_is_ready
from kubesvc.api.meta import JSON, Condition, format_time, parse_time
from kubesvc.api.pods import Pod
from kubesvc.api.policy import (
    DISRUPTION_ALLOWED,
    SYNC_FAILED,
    PodDisruptionBudget,
    PodDisruptionBudgetSpec,
    PodDisruptionBudgetStatus,
)
from kubesvc.controllers.readiness import condition
from kubesvc.controllers.shares import share

DELETION_TIMEOUT = timedelta(seconds=120)  # from a granted eviction on; then the pod stays, and counts again


class Plan(NamedTuple):
    """`again`: seconds after which to look again; `overdue`: pods whose eviction was granted and never came."""

    status: PodDisruptionBudgetStatus
    again: float | None
    overdue: list[Pod]


def is_of_scale(spec: PodDisruptionBudgetSpec) -> bool:
    """Whether what is wanted depends on how many pods their controllers want."""
    return spec.max_unavailable is not None or isinstance(spec.min_available, str)


def plan(budget: PodDisruptionBudget, pods: Sequence[Pod], scale: int, now: datetime) -> Plan:
    """`scale`: how many pods their controllers want, where it depends on that."""
    spec = budget.spec
    expected = scale if is_of_scale(spec) else len(pods)
    desired = 0
    if spec.max_unavailable is not None:
        desired = max(0, expected - share(spec.max_unavailable, expected, up=True))
    elif spec.min_available is not None:
        desired = share(spec.min_available, expected, up=True)
    else:
        expected = 0  # nothing is said: nothing is allowed
    granted, again, overdue = _granted(budget, pods, now)
    healthy = sum(1 for p in pods if not _is_going(p) and p.name not in granted and pod_is_ready(p))
    allowed = max(0, healthy - desired) if expected > 0 else 0
    status = PodDisruptionBudgetStatus(
        observed_generation=budget.metadata.generation,
        disrupted_pods=granted,
        disruptions_allowed=allowed,
        current_healthy=healthy,
        desired_healthy=desired,
        expected_pods=expected,
        conditions=_conditions(budget, allowed > 0, "SufficientPods" if allowed else "InsufficientPods", "", now),
    )
    return Plan(status, again, overdue)


def failed(budget: PodDisruptionBudget, why: str, now: datetime) -> PodDisruptionBudgetStatus:
    """Nothing is allowed while nobody knows how many pods there should be."""
    return replace(
        budget.status,
        observed_generation=budget.metadata.generation,
        disruptions_allowed=0,
        conditions=_conditions(budget, False, SYNC_FAILED, why, now),
    )


def status_patch(budget: PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> JSON:
    """The counts are always there, as upstream has them."""
    gone = budget.status.disrupted_pods.keys() - status.disrupted_pods.keys()
    return {
        "status": {
            "observedGeneration": status.observed_generation,
            "disruptedPods": {**dict.fromkeys(gone), **status.disrupted_pods} if status.disrupted_pods else None,
            "disruptionsAllowed": status.disruptions_allowed,
            "currentHealthy": status.current_healthy,
            "desiredHealthy": status.desired_healthy,
            "expectedPods": status.expected_pods,
            "conditions": [
                {
                    "type": c.type,
                    "status": c.status,
                    "reason": c.reason,
                    "message": c.message,
                    "lastTransitionTime": c.last_transition_time,
                    "observedGeneration": c.observed_generation,
                }
                for c in status.conditions
            ],
        }
    }


def _is_going(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None


def _granted(
    budget: PodDisruptionBudget, pods: Iterable[Pod], now: datetime
) -> tuple[dict[str, str], float | None, list[Pod]]:
    """Evictions granted whose pods aren't seen to go yet, the seconds until the first is overdue, and who is."""
    granted: dict[str, str] = {}
    overdue: list[Pod] = []
    again: float | None = None
    for pod in pods:
        at = budget.status.disrupted_pods.get(pod.name)
        if at is None or _is_going(pod):
            continue
        left = (parse_time(at) + DELETION_TIMEOUT - now).total_seconds()
        if left < 0:
            overdue.append(pod)
        else:
            granted[pod.name] = at
            again = left if again is None else min(again, left)
    return granted, again, overdue


def _conditions(budget: PodDisruptionBudget, holds: bool, reason: str, message: str, now: datetime) -> list[Condition]:
    before = condition(budget.status.conditions, DISRUPTION_ALLOWED)
    status = "True" if holds else "False"
    turned = before.last_transition_time if before is not None and before.status == status else format_time(now)
    mine = Condition(
        type=DISRUPTION_ALLOWED,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=turned,
        observed_generation=budget.metadata.generation,
    )
    return [*(c for c in budget.status.conditions if c.type != DISRUPTION_ALLOWED), mine]
