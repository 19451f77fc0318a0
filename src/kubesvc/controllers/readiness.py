"""When a pod counts: active, ready, available; and the conditions list, kept as the Kubernetes controllers keep it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kubesvc.api.endpoints import pod_is_finished, pod_is_ready
from kubesvc.api.meta import Condition, parse_time
from kubesvc.api.pods import Pod


def is_active(pod: Pod) -> bool:
    """Neither finished nor being deleted: it counts as a replica."""
    return not pod_is_finished(pod) and pod.metadata.deletion_timestamp is None


def ready_since(pod: Pod) -> datetime | None:
    """When the pod's Ready condition last turned, if it is True and says so."""
    for condition in pod.status.conditions:
        if condition.type == "Ready" and condition.status == "True" and condition.last_transition_time:
            return parse_time(condition.last_transition_time)
    return None


def available_in(pod: Pod, min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until a ready pod counts as available, 0 when it does, None when it isn't ready."""
    if not pod_is_ready(pod):
        return None
    since = ready_since(pod)
    if min_ready_seconds == 0 or since is None:
        return 0.0 if min_ready_seconds == 0 else None
    return max(0.0, (since + timedelta(seconds=min_ready_seconds) - now).total_seconds())


def condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    return next((c for c in conditions if c.type == type_), None)
