"""Whether what a pod requests is left on a node. Pure. Follows the noderesources plugin and resourcehelper.PodRequests.

A pod's request is the sum of its containers' and sidecars', or what an init container needs beside the sidecars that
started before it, where that is more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal

from kubesvc.api.pods import Container, Pod
from kubesvc.api.quantity import quantity
from kubesvc.controllers.scheduler.snapshot import Candidate

Amounts = Mapping[str, Decimal]


def _of(container: Container) -> dict[str, Decimal]:
    found = {name: quantity(written) for name, written in container.resources.requests.items()}
    return {name: amount for name, amount in found.items() if amount}


def _sum(amounts: Iterable[Amounts]) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for part in amounts:
        for name, amount in part.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def requests(pod: Pod) -> dict[str, Decimal]:
    """resource -> how much; without those it doesn't ask for."""
    sidecars: list[Amounts] = []
    most: dict[str, Decimal] = {}
    for container in pod.spec.init_containers:
        own = _of(container)
        if container.restart_policy == "Always":
            sidecars.append(own)
            continue
        for name, amount in _sum([*sidecars, own]).items():
            most[name] = max(most.get(name, Decimal(0)), amount)
    total = _sum([*sidecars, *map(_of, pod.spec.containers)])
    return {name: max(total.get(name, Decimal(0)), most.get(name, Decimal(0))) for name in {*total, *most}}


def requested(pods: Iterable[Pod]) -> dict[str, Decimal]:
    """By all of them together. Pods of one template are counted at once."""
    alike = Counter(tuple(sorted(requests(pod).items())) for pod in pods)
    return _sum({name: amount * count for name, amount in each} for each, count in alike.items())


def lacking(wanted: Amounts, candidate: Candidate) -> list[str]:
    """Upstream's reasons, one for each resource there isn't enough of; a node that says nothing has room for all."""
    allocatable = candidate.node.status.allocatable
    if not allocatable:
        return []
    found = []
    if candidate.pods >= (quantity(allocatable.get("pods", 110)) or 0):
        found.append("Too many pods")
    for name, amount in sorted(wanted.items()):
        left = (quantity(allocatable.get(name, 0)) or Decimal(0)) - candidate.requested.get(name, Decimal(0))
        if amount > left:
            found.append(f"Insufficient {name}")
    return found
