"""policy/v1 PodDisruptionBudget: how many of some pods may be away at once by somebody's wish."""

from __future__ import annotations

from datetime import datetime

from kubesvc.api.meta import JSON, Condition, LabelSelector, Object, Struct, format_time

DISRUPTION_ALLOWED = "DisruptionAllowed"  # the condition
SYNC_FAILED = "SyncFailed"  # its reason where nobody knows how many there should be


class PodDisruptionBudgetSpec(Struct, frozen=True):
    """`selector` None means no pod, the empty one every pod of the namespace."""

    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: LabelSelector | None = None
    unhealthy_pod_eviction_policy: str | None = None


class PodDisruptionBudgetStatus(Struct, frozen=True):
    """`disrupted_pods`: name -> when its eviction was granted, until its deletion is seen."""

    observed_generation: int = 0
    disrupted_pods: dict[str, str] = {}
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    conditions: list[Condition] = []


class PodDisruptionBudget(Object, frozen=True):
    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()


def disrupted(reason: str, message: str, now: datetime) -> JSON:
    """A pod's condition DisruptionTarget: why it goes, though it did nothing wrong."""
    return {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(now),
    }
