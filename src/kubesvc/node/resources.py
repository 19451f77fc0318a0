"""What a container's requests and limits come to in its control group: the OCI runtime spec's `resources`. Pure.

Follows the kubelet: a CPU limit is a quota of each 100 ms, a CPU request shares (1024 a CPU), a memory limit a limit of
memory. Without a request, the limit is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

from kubesvc.api.meta import JSON
from kubesvc.api.pods import Container, Pod, ResourceFieldSelector, ResourceRequirements
from kubesvc.api.quantity import quantity

PERIOD = 100_000  # µs
LEAST_QUOTA = 1_000  # µs
LEAST_SHARES, MOST_SHARES = 2, 262_144
ENFORCED = ("cpu", "memory")


def limits(wanted: ResourceRequirements) -> list[str]:
    """The names of the limits that control groups enforce, of those given."""
    return [name for name in ENFORCED if quantity(wanted.limits.get(name, 0))]


def build(wanted: ResourceRequirements) -> JSON:
    """Empty where nothing is asked for."""
    found: JSON = {}
    cpu = quantity(wanted.limits.get("cpu", 0)) or 0
    share = quantity(wanted.requests.get("cpu", wanted.limits.get("cpu", 0))) or 0
    if cpu or share:
        found["cpu"] = {"shares": max(LEAST_SHARES, min(int(share * 1024), MOST_SHARES))}
    if cpu:
        found["cpu"] |= {"quota": max(LEAST_QUOTA, int(cpu * PERIOD)), "period": PERIOD}
    memory = quantity(wanted.limits.get("memory", 0)) or 0
    if memory:
        found["memory"] = {"limit": int(memory)}
    return found


def shown(wanted: ResourceFieldSelector, container: Container, allocatable: Mapping[str, str]) -> str:
    """What a container's environment or a volume says of its requests and limits, rounded up to whole `divisor`s.

    `allocatable` is what the node has: the limit of a container without one. Raises ValueError.
    """
    which, _, name = wanted.resource.partition(".")
    if which not in ("limits", "requests") or not name:
        raise ValueError(f"unsupported container resource : {wanted.resource}")
    given = container.resources.limits if which == "limits" else container.resources.requests
    written = given.get(
        name, allocatable.get(name, 0) if which == "limits" else container.resources.limits.get(name, 0)
    )
    divisor = quantity(wanted.divisor) or Decimal(1)
    return str(math.ceil((quantity(written) or Decimal(0)) / divisor))


def of_container(wanted: ResourceFieldSelector, pod: Pod, own: Container | None, allocatable: Mapping[str, str]) -> str:
    """`shown` of the container that is named, else of `own`. Raises ValueError when there is none."""
    if not wanted.container_name and own is not None:
        return shown(wanted, own, allocatable)
    for container in pod.spec.every_container:
        if container.name == wanted.container_name:
            return shown(wanted, container, allocatable)
    raise ValueError(f"container {wanted.container_name} not found")
