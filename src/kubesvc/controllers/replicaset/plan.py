"""How many pods to create, which to delete, and what the status says.

Follows the ReplicaSet controller: which pod goes first is a ranking from "nobody would miss it" to "longest in
service"; the counts are of the pods as seen before this plan is carried out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from kubesvc.api.apps import ReplicaSet, ReplicaSetStatus
from kubesvc.api.endpoints import pod_is_ready
from kubesvc.api.meta import JSON, Condition, format_time
from kubesvc.api.pods import Pod
from kubesvc.controllers.readiness import available_in, condition, is_active, ready_since

BURST = 500
"""At most so many pods are created or deleted in one go."""

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


class Plan(msgspec.Struct, frozen=True):
    """`again` is in how many seconds a ready pod becomes available, if one does."""

    create: int
    delete: tuple[Pod, ...]
    status: ReplicaSetStatus
    again: float | None = None


def plan(
    rs: ReplicaSet, pods: Iterable[Pod], neighbours: Iterable[Pod], now: datetime, failure: Condition | None = None
) -> Plan:
    """`pods` are those `rs` controls; `neighbours` those of ReplicaSets with the same controller, by which pods that
    share a node are told; `failure` is the ReplicaFailure condition of the last attempt."""
    active = [p for p in pods if is_active(p)]
    surplus = len(active) - rs.spec.replicas
    create = 0
    delete: tuple[Pod, ...] = ()
    if rs.metadata.deletion_timestamp is None:
        create = min(max(-surplus, 0), BURST)
        delete = tuple(rank(active, neighbours)[: min(max(surplus, 0), BURST)])
    waits = [w for p in active if (w := available_in(p, rs.spec.min_ready_seconds, now)) is not None]
    wanted = (rs.spec.template.get("metadata") or {}).get("labels") or {}
    kept = [c for c in rs.status.conditions if c.type != "ReplicaFailure"]
    status = ReplicaSetStatus(
        replicas=len(active),
        fully_labeled_replicas=sum(wanted.items() <= p.metadata.labels.items() for p in active),
        ready_replicas=sum(pod_is_ready(p) for p in active),
        available_replicas=sum(w == 0 for w in waits),
        observed_generation=rs.metadata.generation,
        conditions=[*kept, failure] if failure else kept,
    )
    return Plan(create, delete, status, min((w for w in waits if w > 0), default=None))


def rank(pods: Sequence[Pod], neighbours: Iterable[Pod]) -> list[Pod]:
    """`pods` in the order they are deleted: unassigned, pending, not ready, cheaper, doubled up on a node, ready for a
    shorter time, restarted more often, younger."""
    on_node = Counter(p.spec.node_name for p in neighbours if is_active(p))
    phases = {"Pending": 0, "": 0, "Unknown": 1}

    def order(pod: Pod) -> tuple[object, ...]:
        since = ready_since(pod)
        return (
            bool(pod.spec.node_name),
            phases.get(pod.status.phase, 2),
            pod_is_ready(pod),
            _cost(pod),
            -on_node[pod.spec.node_name],
            -since.timestamp() if since else float("-inf"),
            -max((s.restart_count for s in pod.status.container_statuses), default=0),
            _Descending(pod.metadata.creation_timestamp or ""),
            pod.name,
        )

    return sorted(pods, key=order)


class _Descending(str):
    """Text that sorts the other way round: the newest time first."""

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def _cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


def failure_condition(before: Sequence[Condition], reason: str, message: str, now: datetime) -> Condition:
    """ReplicaFailure=True; it keeps the time since which it has been so."""
    known = condition(before, "ReplicaFailure")
    since = known.last_transition_time if known else format_time(now)
    return Condition("ReplicaFailure", "True", reason, message, last_transition_time=since)


def status_patch(status: ReplicaSetStatus) -> JSON:
    """Counts that are zero are left out on the wire, as upstream leaves them; `replicas` is always there."""
    conditions = [_condition_tree(c) for c in status.conditions]
    return {
        "status": {
            "replicas": status.replicas,
            "fullyLabeledReplicas": status.fully_labeled_replicas or None,
            "readyReplicas": status.ready_replicas or None,
            "availableReplicas": status.available_replicas or None,
            "observedGeneration": status.observed_generation or None,
            "conditions": conditions or None,
        }
    }


def _condition_tree(c: Condition) -> JSON:
    return {
        "type": c.type,
        "status": c.status,
        "reason": c.reason,
        "message": c.message,
        "lastTransitionTime": c.last_transition_time,
    }
