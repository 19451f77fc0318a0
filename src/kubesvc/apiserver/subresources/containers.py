"""Which pod and container a log, exec or port-forward request means, on which node, and whether it can be had; in
upstream's words."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from kubesvc.api.errors import BadRequest
from kubesvc.api.nodes import Node
from kubesvc.api.pods import ContainerStatus, Pod
from kubesvc.api.registry import NODE
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State

_PULLING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


class Place(NamedTuple):
    pod: Pod
    container: str
    node: Node

    @property
    def path(self) -> str:
        """NAMESPACE/POD/CONTAINER, as the agents' paths end."""
        return f"{self.pod.namespace}/{self.pod.name}/{self.container}"


async def locate(state: State, target: Target, container: str) -> Place:
    """Raises NotFound (the pod or its node), BadRequest for a container that isn't there or not clear."""
    pod = await read_pod(state, target)
    name = _choose(pod, container)
    return Place(pod, name, await node_of(state, pod))


async def read_pod(state: State, target: Target) -> Pod:
    """Raises NotFound."""
    return msgspec.json.decode((await state.read(target)).value, type=Pod)


async def node_of(state: State, pod: Pod) -> Node:
    """Raises BadRequest for a pod without one, NotFound for a node that isn't known."""
    if not pod.spec.node_name:
        raise BadRequest(f"pod {pod.name} does not have a host assigned")
    return await read_node(state, pod.spec.node_name)


async def read_node(state: State, name: str) -> Node:
    """Raises NotFound."""
    return msgspec.json.decode((await state.read(Target(NODE, "", name))).value, type=Node)


def _choose(pod: Pod, container: str) -> str:
    names = [c.name for c in pod.spec.containers]
    initial = [c.name for c in pod.spec.init_containers]
    ephemeral = [c.name for c in pod.spec.ephemeral_containers]
    if container:
        if container not in names + initial + ephemeral:
            raise BadRequest(f"container {container} is not valid for pod {pod.name}")
        return container
    if len(names) == 1:
        return names[0]
    annotated = pod.metadata.annotations.get("kubectl.kubernetes.io/default-container", "")
    if annotated in names:
        return annotated
    choices = f"[{' '.join(names)}]"
    if initial:
        choices += f" or one of the init containers: [{' '.join(initial)}]"
    raise BadRequest(f"a container name must be specified for pod {pod.name}, choose one of: {choices}")


def refuse_unstarted(place: Place, *, previous: bool = False) -> None:
    """Raises BadRequest while there is no container yet whose output or inside could be seen."""
    pod, name = place.pod, place.container
    status = _status(pod, name)
    last = status.last_state.terminated if status else None
    if previous:
        if last is None:
            raise BadRequest(f'previous terminated container "{name}" in pod "{pod.name}" not found')
        return
    if status and (status.state.running or status.state.terminated or last):
        return
    waiting = status.state.waiting if status else None
    reason = waiting.reason if waiting and waiting.reason else "ContainerCreating"
    raise BadRequest(f'container "{name}" in pod "{pod.name}" is waiting to start: {_PULLING.get(reason, reason)}')


def refuse_not_running(place: Place, subresource: str) -> None:
    """Raises BadRequest unless the container runs now: exec and attach need a live one."""
    pod, name = place.pod, place.container
    if pod.status.phase in ("Succeeded", "Failed"):
        what = "exec into" if subresource == "exec" else subresource
        raise BadRequest(f"cannot {what} a container in a completed pod; current phase is {pod.status.phase}")
    refuse_unstarted(place)
    status = _status(pod, name)
    if status is None or status.state.running is None:
        raise BadRequest(f'unable to upgrade connection: container not found ("{name}")')


def _status(pod: Pod, name: str) -> ContainerStatus | None:
    told = pod.status
    statuses = (*told.container_statuses, *told.init_container_statuses, *told.ephemeral_container_statuses)
    return next((status for status in statuses if status.name == name), None)
