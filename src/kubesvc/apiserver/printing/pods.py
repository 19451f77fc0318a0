"""Pods. The STATUS column is no field: it is worked out from the phase, the containers and the deletion."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.apiserver.printing.columns import AGE, NAME, NONE, Column, Printer, at, name_of, wide
from kubesvc.apiserver.printing.duration import age, since


def _cells(pod: JSON, now: datetime) -> list[Any]:
    status = pod.get("status") or {}
    ready, total, restarts, last = _counts(pod)
    shown = f"{restarts} ({since(last, now)} ago)" if restarts and last else str(restarts)
    ips = [p.get("ip", "") for p in status.get("podIPs") or ()] or [status.get("podIP") or ""]
    return [
        name_of(pod),
        f"{ready}/{total}",
        _reason(pod),
        shown,
        age(pod, now),
        ips[0] or NONE,
        at(pod, "spec", "nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(pod),
    ]


def _sidecars(pod: JSON) -> set[str]:
    """Init containers that go on running beside the others."""
    return {c["name"] for c in at(pod, "spec", "initContainers") or () if c.get("restartPolicy") == "Always"}


def _initializing(pod: JSON) -> str | None:
    """What the init containers are at, or None when they are through."""
    sidecars = _sidecars(pod)
    statuses = at(pod, "status", "initContainerStatuses") or []
    for index, container in enumerate(statuses):
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        if terminated is not None:
            return f"Init:{_ended(terminated)}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{len(at(pod, 'spec', 'initContainers') or ())}"
    return None


def _ended(terminated: JSON) -> str:
    if reason := terminated.get("reason"):
        return str(reason)
    if signal := terminated.get("signal"):
        return f"Signal:{signal}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _is_true(pod: JSON, condition: str) -> bool:
    conditions = at(pod, "status", "conditions") or ()
    return any(c.get("type") == condition and c.get("status") == "True" for c in conditions)


def _reason(pod: JSON) -> str:
    status = pod.get("status") or {}
    reason: str = status.get("reason") or status.get("phase") or ""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    initializing = _initializing(pod)
    if initializing is not None:
        reason = initializing
    if initializing is None or _is_true(pod, "Initialized"):
        reason = _running_reason(pod, reason)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return reason


def _running_reason(pod: JSON, reason: str) -> str:
    """The first container that isn't simply running speaks for the pod."""
    running = False
    for container in reversed(at(pod, "status", "containerStatuses") or []):
        state = container.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif state.get("terminated") is not None:
            reason = _ended(state["terminated"])
        elif container.get("ready") and state.get("running") is not None:
            running = True
    if reason == "Completed" and running:
        return "Running" if _is_true(pod, "Ready") else "NotReady"
    return reason


def _counts(pod: JSON) -> tuple[int, int, int, str | None]:
    """(ready, containers, restarts, when the last of them ended)."""
    sidecars = _sidecars(pod)
    inits = at(pod, "status", "initContainerStatuses") or []
    mains = at(pod, "status", "containerStatuses") or []
    started = _initializing(pod) is None or _is_true(pod, "Initialized")
    beside = [c for c in inits if c.get("name") in sidecars]
    ready = sum(1 for c in beside if c.get("started") and c.get("ready"))
    if started:
        ready += sum(1 for c in mains if c.get("ready") and at(c, "state", "running") is not None)
    counted = beside + mains if started else inits
    ended = [at(c, "lastState", "terminated", "finishedAt") for c in counted]
    return (
        ready,
        len(at(pod, "spec", "containers") or ()) + len(sidecars),
        sum(c.get("restartCount") or 0 for c in counted),
        max((e for e in ended if e), default=None),
    )


def _gates(pod: JSON) -> str:
    gates = [g.get("conditionType", "") for g in at(pod, "spec", "readinessGates") or ()]
    return f"{sum(_is_true(pod, gate) for gate in gates)}/{len(gates)}" if gates else NONE


_FINISHED = {
    "Succeeded": "The pod has completed successfully.",
    "Failed": "The pod failed.",
}


def _conditions(pod: JSON) -> list[JSON]:
    phase = at(pod, "status", "phase")
    if phase not in _FINISHED:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _FINISHED[phase]}]


PRINTERS = {
    (registry.POD.group, registry.POD.plural): Printer(
        (
            NAME,
            Column("Ready", description="Containers that are ready, of all."),
            Column("Status", description="What the pod is at."),
            Column("Restarts", description="How often containers were started again, and when last."),
            AGE,
            *wide("IP", "Node", "Nominated Node", "Readiness Gates"),
        ),
        _cells,
        _conditions,
    )
}
