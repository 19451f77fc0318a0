"""Which pods keep more on the node's disk than they may: in an emptyDir than its sizeLimit, in containers and in all
than the containers' limits of ephemeral-storage. Pure.

Follows the kubelet (pkg/kubelet/eviction): the volumes are looked at first, then the whole pod, then each container. A
container's own is what it has written and its logs; the pod's is all of that and the emptyDirs on disk. What is in
memory (medium: Memory) has its limit from the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from kubesvc.api.pods import Container, Pod
from kubesvc.api.quantity import canonical, quantity
from kubesvc.node.lifecycle import is_sidecar

REASON = "Evicted"
RESOURCE = "ephemeral-storage"


class Usage(msgspec.Struct, frozen=True):
    """Bytes on disk."""

    volumes: Mapping[str, int] = {}  # an emptyDir's name -> bytes
    containers: Mapping[str, int] = {}  # a container's name -> bytes


def on_disk(pod: Pod) -> list[str]:
    """The names of the emptyDirs that are on the node's disk."""
    return [v.name for v in pod.spec.volumes if v.empty_dir is not None and not v.empty_dir.medium]


def limited_volumes(pod: Pod) -> list[str]:
    """Those of them that have a limit."""
    limited = {v.name for v in pod.spec.volumes if v.empty_dir is not None and _amount(v.empty_dir.size_limit) > 0}
    return [name for name in on_disk(pod) if name in limited]


def is_limited(pod: Pod) -> bool:
    """Whether a container has a limit, so that all that the pod keeps on disk counts."""
    return any(RESOURCE in c.resources.limits for c in (*pod.spec.init_containers, *pod.spec.containers))


def excess(pod: Pod, usage: Usage) -> str:
    """Why the pod is to be evicted; "" while it keeps within its limits."""
    for volume in pod.spec.volumes:
        limit = volume.empty_dir.size_limit if volume.empty_dir is not None else None
        if usage.volumes.get(volume.name, 0) > _amount(limit) > 0:
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{_shown(limit)}".'
    if is_limited(pod):
        most, written = _of_pod(pod)
        if sum(usage.volumes.values()) + sum(usage.containers.values()) > most:
            total = canonical(most, written)
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}."
    for container in pod.spec.containers:
        most = _amount(given := container.resources.limits.get(RESOURCE))
        if usage.containers.get(container.name, 0) > most > 0:
            return f'Container {container.name} exceeded its local ephemeral storage limit "{_shown(given)}".'
    return ""


def _amount(written: object) -> Decimal:
    """0 where there is none."""
    return (quantity(written) or Decimal(0)) if written is not None else Decimal(0)


def _shown(written: object) -> str:
    return canonical(_amount(written), written)


def _of_pod(pod: Pod) -> tuple[Decimal, object]:
    """The pod's limit, and a quantity it is to be written like: containers and sidecars together, or what an init
    container may beside the sidecars before it."""
    sidecars = _sum(c for c in pod.spec.init_containers if is_sidecar(c))
    most = _sum(pod.spec.containers) + sidecars
    beside = Decimal(0)
    for container in pod.spec.init_containers:
        own = _sum((container,))
        most = max(most, beside + own)
        beside += own if is_sidecar(container) else 0
    given = (c.resources.limits.get(RESOURCE) for c in (*pod.spec.containers, *pod.spec.init_containers))
    return most, next((limit for limit in given if limit is not None), "")


def _sum(containers: Iterable[Container]) -> Decimal:
    return sum((_amount(c.resources.limits.get(RESOURCE)) for c in containers), Decimal(0))
