"""A pod's status, computed from its containers. Pure; follows kubelet's getPhase and status/generate.go word for word.

The result is the `status` of a strategic merge patch: conditions merge by type, so those that others own (PodScheduled,
readiness gates) are left alone; lists of containers are replaced whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from kubesvc.api.meta import JSON, Condition, format_time
from kubesvc.api.pods import Container, Pod
from kubesvc.node import mounting
from kubesvc.node.lifecycle import Exit, State, View, is_sidecar

CREATING, INITIALIZING = "ContainerCreating", "PodInitializing"
OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
DEADLINE, TOO_LONG = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"


class Failure(msgspec.Struct, frozen=True):
    """Why a pod as a whole has failed, whatever its containers did."""

    reason: str
    message: str


def _time(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))


def _terminated(exit_: Exit) -> JSON:
    found: JSON = {"exitCode": exit_.code, "reason": exit_.reason, "finishedAt": _time(exit_.finished_at)}
    found["startedAt"] = _time(exit_.started_at) if exit_.started_at else None
    if exit_.message:
        found["message"] = exit_.message
    if exit_.id:
        found["containerID"] = f"runc://{exit_.id}"
    return {"terminated": found}


def _state(view: View, initializing: bool) -> JSON:
    if view.state is State.RUNNING:
        return {"running": {"startedAt": _time(view.started_at)}}
    if view.state is State.TERMINATED and view.exit is not None:
        return _terminated(view.exit)
    waiting = {"reason": INITIALIZING if initializing and view.reason == CREATING else view.reason}
    if view.message:
        waiting["message"] = view.message
    return {"waiting": waiting}


def container_status(
    container: Container, view: View, *, initializing: bool = False, all_read_only: bool = False
) -> JSON:
    """`initializing`: the pod has init containers; `all_read_only`: the machine makes mounts below others read-only."""
    last = view.exit if view.state is State.WAITING and view.exit is not None else view.last
    found: JSON = {
        "name": container.name,
        "image": container.image,
        "imageID": view.image if view.id else "",
        "containerID": f"runc://{view.id}" if view.id else "",
        "restartCount": view.attempt,
        "started": view.running and view.started,
        "ready": view.ready,
        "state": _state(view, initializing),
        "lastState": _terminated(last) if last is not None else {},
    }
    if container.volume_mounts:
        found["volumeMounts"] = mounting.status(container, possible=all_read_only)
    return found


def phase(pod: Pod, views: Mapping[str, View], *, ended: bool = False) -> str:
    """Pending, Running, Succeeded or Failed. `ended`: the pod was told to go and every container has stopped.

    It isn't over before its last sidecar is."""
    found = _phase(pod, views, ended)
    if found in ("Succeeded", "Failed") and any(views[c.name].running for c in pod.spec.init_containers):
        return "Running" if any(views[c.name].id for c in pod.spec.containers) else "Pending"
    return found


def _phase(pod: Pod, views: Mapping[str, View], ended: bool) -> str:
    policy = pod.spec.restart_policy
    plain = [views[c.name] for c in pod.spec.init_containers if not is_sidecar(c)]
    sidecars = [views[c.name] for c in pod.spec.init_containers if is_sidecar(c)]
    regular = [views[c.name] for c in pod.spec.containers]
    if ended:
        clean = all(v.exit is not None and v.exit.code == 0 for v in regular)
        return "Succeeded" if clean else "Failed"
    for view in plain:
        if view.exit is not None and view.exit.code != 0 and policy == "Never":
            return "Failed"
        if not view.succeeded:
            return "Pending"
    if any(not v.id and v.exit is None for v in sidecars):
        return "Pending"
    if any(v.state is State.WAITING and v.exit is None for v in regular):
        return "Pending"
    if any(v.running for v in regular):
        return "Running"
    if policy == "Always":
        return "Running"
    if all(v.succeeded for v in regular):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _names(names: Sequence[str]) -> str:
    return "[" + " ".join(names) + "]"


def _verdicts(pod: Pod, views: Mapping[str, View], phase_: str, sandbox: bool) -> dict[str, tuple[str, str, str]]:
    """condition type -> (status, reason, message)"""
    done = phase_ in ("Succeeded", "Failed")
    incomplete = [
        c.name
        for c in pod.spec.init_containers
        if not (views[c.name].started if is_sidecar(c) else views[c.name].succeeded)
    ]
    needed = [*(c for c in pod.spec.init_containers if is_sidecar(c)), *pod.spec.containers]
    unready = [c.name for c in needed if not views[c.name].ready]

    initialized = ("True", "", "")
    if phase_ == "Succeeded":
        initialized = ("True", "PodCompleted", "")
    elif incomplete and not any(views[c.name].id for c in pod.spec.containers):
        message = f"containers with incomplete status: {_names(incomplete)}"
        initialized = ("False", "ContainersNotInitialized", message)

    ready = ("True", "", "")
    if phase_ == "Succeeded":
        ready = ("False", "PodCompleted", "")
    elif phase_ == "Failed":
        ready = ("False", "PodFailed", "")
    elif unready:
        ready = ("False", "ContainersNotReady", f"containers with unready status: {_names(unready)}")

    whole = ready
    if ready[0] == "True":
        given = {c.type: c.status for c in pod.status.conditions}
        for gate in pod.spec.readiness_gates:
            name = gate.condition_type
            if given.get(name) != "True":
                seen = 'the status of pod readiness gate "{}" is not "True", but {}' if name in given else None
                absent = 'corresponding condition of pod readiness gate "{}" does not exist.'
                message = seen.format(name, given[name]) if seen else absent.format(name)
                whole = ("False", "ReadinessGatesNotReady", message)
                break
    sandboxed = ("True", "", "") if sandbox and not done else ("False", "", "")
    return {
        "PodReadyToStartContainers": sandboxed,
        "Initialized": initialized,
        "Ready": whole,
        "ContainersReady": ready,
    }


def conditions(
    verdicts: Mapping[str, tuple[str, str, str]], before: Iterable[Condition], now: float, generation: int
) -> list[JSON]:
    """Conditions whose transition time is kept where the status is what it was."""
    known = {c.type: c for c in before}
    found = []
    for name, (status, reason, message) in verdicts.items():
        old = known.get(name)
        kept = old is not None and old.status == status and old.last_transition_time
        condition: JSON = {
            "type": name,
            "status": status,
            "lastProbeTime": None,
            "lastTransitionTime": old.last_transition_time if old is not None and kept else _time(now),
            "reason": reason or None,
            "message": message or None,
        }
        if generation:
            condition["observedGeneration"] = generation
        found.append(condition)
    return found


def build(
    pod: Pod,
    views: Mapping[str, View],
    now: float,
    *,
    addresses: Sequence[str],
    host_ips: Sequence[str],
    started_at: float,
    all_read_only: bool = False,
    ended: bool = False,
    failure: Failure | None = None,
    before: Iterable[Condition] | None = None,
) -> JSON:
    """The status to patch. `before`: the conditions published last; by default those the pod carries.
    `failure`: the pod was ended, and why."""
    phase_ = "Failed" if failure is not None else phase(pod, views, ended=ended)
    verdicts = _verdicts(pod, views, phase_, bool(addresses))

    def shown(container: Container) -> JSON:
        initializing = bool(pod.spec.init_containers)
        return container_status(
            container, views[container.name], initializing=initializing, all_read_only=all_read_only
        )

    found: JSON = {
        "phase": phase_,
        "hostIP": host_ips[0],
        "hostIPs": [{"ip": ip} for ip in host_ips],
        "startTime": _time(started_at),
        "conditions": conditions(
            verdicts, pod.status.conditions if before is None else before, now, pod.metadata.generation
        ),
        "containerStatuses": [shown(c) for c in pod.spec.containers],
    }
    if failure is not None:
        found |= {"reason": failure.reason, "message": failure.message}
    if pod.spec.ephemeral_containers:
        found["ephemeralContainerStatuses"] = [
            container_status(c, views[c.name], all_read_only=all_read_only) for c in pod.spec.ephemeral_containers
        ]
    if pod.spec.init_containers:
        found["initContainerStatuses"] = [shown(c) for c in pod.spec.init_containers]
    if addresses:
        found["podIP"] = addresses[0]
        stale = [{"$patch": "delete", "ip": p.ip} for p in pod.status.pod_ips if p.ip not in addresses]
        found["podIPs"] = [*({"ip": address} for address in addresses), *stale]
    return found
