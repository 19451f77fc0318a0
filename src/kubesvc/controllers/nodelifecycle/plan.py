"""What becomes of a silent node: its conditions turn Unknown, it is tainted, its pods stop counting and in time go.

Follows pkg/controller/nodelifecycle and tainteviction:

    Lease not renewed for the grace ─► Ready Unknown ─► taints unreachable ─► its pods Ready False: out of every slice
                                                             └── tolerationSeconds (300) later: pods deleted

A taint NoExecute of anybody else's drives away, at once or in time, the pods that don't tolerate it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.endpoints import pod_is_ready
from kubesvc.api.labels import NOT_READY, UNREACHABLE
from kubesvc.api.meta import JSON, format_time, parse_time
from kubesvc.api.nodes import Node, Taint
from kubesvc.api.pods import Pod, Toleration
from kubesvc.api.policy import disrupted
from kubesvc.controllers.readiness import condition

KEPT_BY_AGENT = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
STOPPED = ("NodeStatusUnknown", "Kubelet stopped posting node status.")
NEVER = ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
NO_EXECUTE = "NoExecute"
TOLERATED = 300.0
"""Seconds a pod that says nothing else stays bound to a node that is not ready, as upstream's admission gives it."""


def silenced(node: Node, now: datetime) -> JSON | None:
    """The status patch for a node that isn't heard of any more; None when it says so already."""
    turned = []
    for kind in KEPT_BY_AGENT:
        found = condition(node.status.conditions, kind)
        if found is not None and found.status == "Unknown":
            continue
        reason, message = STOPPED if found is not None else NEVER
        since = format_time(now)
        said = {"type": kind, "status": "Unknown", "reason": reason, "message": message, "lastTransitionTime": since}
        turned.append(said)
    return {"status": {"conditions": turned}} if turned else None


def taints(node: Node) -> list[Taint] | None:
    """The taints that fit the node's Ready condition, with all others it has; None when they are right."""
    ready = condition(node.status.conditions, "Ready")
    if ready is None:
        return None
    key = {"True": "", "Unknown": UNREACHABLE}.get(ready.status, NOT_READY)
    kept = [t for t in node.spec.taints if t.key not in (UNREACHABLE, NOT_READY) or t.key == key]
    have = {(t.key, t.effect) for t in kept}
    added = [Taint(key, effect) for effect in ("NoSchedule", "NoExecute") if key and (key, effect) not in have]
    wanted = [*kept, *added]
    return wanted if wanted != node.spec.taints else None


def taint_patch(node: Node, wanted: Sequence[Taint]) -> JSON:
    trees = [{"key": t.key, "effect": t.effect} | ({"value": t.value} if t.value else {}) for t in wanted]
    return {"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": trees or None}}


def to_mark(pods: Iterable[Pod]) -> list[Pod]:
    """Those of a node's pods that still say they are ready."""
    return [pod for pod in pods if pod_is_ready(pod)]


def not_ready(now: datetime) -> JSON:
    """The status patch that makes a pod not ready."""
    turned = {"type": "Ready", "status": "False", "lastTransitionTime": format_time(now)}
    return {"status": {"conditions": [turned]}}


def stay(pod: Pod, key: str) -> float | None:
    """Seconds `pod` stays on a node tainted with `key`:NoExecute; None is for ever."""
    return _stay(pod, Taint(key, NO_EXECUTE), TOLERATED)


def _stay(pod: Pod, taint: Taint, untolerated: float) -> float | None:
    given = [t for t in pod.spec.tolerations if _covers(t, taint)]
    if not given:
        return untolerated
    limits = [t.toleration_seconds for t in given if t.toleration_seconds is not None]
    return max(0.0, float(min(limits))) if limits else None


def _covers(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", NO_EXECUTE):
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    return (toleration.key, toleration.value) == (taint.key, taint.value)


def banning(node: Node) -> list[Taint]:
    """The taints that drive pods away, but for those that follow the Ready condition."""
    return [t for t in node.spec.taints if t.effect == NO_EXECUTE and t.key not in (UNREACHABLE, NOT_READY)]


def banned(pods: Iterable[Pod], since: Mapping[Taint, datetime], now: datetime) -> tuple[list[Pod], float | None]:
    """(pods whose time under the taints is up, seconds until the next one's is); a taint -> when it was first seen."""
    due: list[Pod] = []
    waits: list[float] = []
    for pod in pods:
        if pod.metadata.deletion_timestamp is not None or not since:
            continue
        made = pod.metadata.creation_timestamp
        come = parse_time(made) if made else now
        ends = [
            (max(seen, come) - now).total_seconds() + limit
            for taint, seen in since.items()
            if (limit := _stay(pod, taint, 0.0)) is not None
        ]
        if ends and min(ends) <= 0:
            due.append(pod)
        else:
            waits += ends
    return due, min(waits, default=None)


def evictions(node: Node, pods: Iterable[Pod], now: datetime) -> tuple[list[Pod], float | None]:
    """(pods whose time on a node that isn't ready is up, seconds until the next one's is)."""
    ready = condition(node.status.conditions, "Ready")
    if ready is None or ready.status == "True" or not ready.last_transition_time:
        return [], None
    gone_for = (now - parse_time(ready.last_transition_time)).total_seconds()
    due: list[Pod] = []
    waits: list[float] = []
    for pod in pods:
        limit = stay(pod, UNREACHABLE if ready.status == "Unknown" else NOT_READY)
        if limit is None or pod.metadata.deletion_timestamp is not None:
            continue
        if gone_for >= limit:
            due.append(pod)
        else:
            waits.append(limit - gone_for)
    return due, min(waits, default=None)


def lost(now: datetime) -> JSON:
    """The status patch for a pod whose node is gone, before it is deleted."""
    target = disrupted("DeletionByPodGC", "PodGC: node no longer exists", now)
    return {"status": {"phase": "Failed", "conditions": [target]}}


def banished(now: datetime) -> JSON:
    """The status patch for a pod that a taint drives away, before it is deleted."""
    target = disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now)
    return {"status": {"conditions": [target]}}


def closed(found: EndpointSlice, node: str) -> JSON | None:
    """The patch by which no endpoint of `node` in a slice is ready; None when none is."""
    if not any(e.node_name == node and e.ready for e in found.endpoints):
        return None
    trees: list[JSON] = [msgspec.to_builtins(e) for e in found.endpoints]
    for tree in trees:
        if tree.get("nodeName") == node:
            tree["conditions"] = {"ready": False, "serving": False, "terminating": False}
    return {"metadata": {"resourceVersion": found.metadata.resource_version}, "endpoints": trees}
