"""Which node a pod goes to, or why it fits nowhere. Pure.

Filters, in upstream's order and words: taints, node affinity, host ports, resources, volumes, topology spread, affinity
between pods. Of the nodes left, the first by: taints that would rather not have it; the weights of what the pod
prefers; how crowded its spread's domains are; the fewest pods of the same owner (a Service's replicas spread); the
fewest pods at all; the name. Priorities are left out: no pod makes way for another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from kubesvc.api.pods import Pod
from kubesvc.controllers.scheduler import nodeaffinity, resources, taints
from kubesvc.controllers.scheduler.podaffinity import PodRules
from kubesvc.controllers.scheduler.snapshot import Candidate, HostPort, Namespaces
from kubesvc.controllers.scheduler.spread import Spread
from kubesvc.controllers.scheduler.volumes import NO_BINDINGS, NOTHING, Bindings, PodVolumes, Storage


class Decision(msgspec.Struct, frozen=True):
    """The node's name, and what its claims get first; or "" and the message that says why none fits, and whether that
    is likely to pass in a moment."""

    node: str
    message: str = ""
    bindings: Bindings = NO_BINDINGS
    passing: bool = False


def host_ports(pod: Pod) -> frozenset[HostPort]:
    """The node's ports a pod takes: those asked for, and on the host's network all that it declares."""
    return frozenset(
        HostPort(p.protocol, p.host_port or p.container_port, "" if p.host_ip in ("0.0.0.0", "::") else p.host_ip)
        for container in pod.spec.containers
        for p in container.ports
        if p.host_port or pod.spec.host_network
    )


def _collide(wanted: frozenset[HostPort], taken: frozenset[HostPort]) -> bool:
    return any(
        w.port == t.port and w.protocol == t.protocol and (w.address == t.address or "" in (w.address, t.address))
        for w in wanted
        for t in taken
    )


def refusal(pod: Pod, candidate: Candidate) -> str:
    """Why the pod can't run there, as far as the node itself and its ports say; "" when it can."""
    if reason := taints.refusal(pod, candidate.node):
        return reason
    if not nodeaffinity.matches(pod, candidate.node):
        return nodeaffinity.REASON
    if _collide(host_ports(pod), candidate.host_ports):
        return "node(s) didn't have free ports for the requested pod ports"
    return ""


def plan(
    pod: Pod, candidates: Sequence[Candidate], namespaces: Namespaces | None = None, storage: Storage = NOTHING
) -> Decision:
    if not candidates:
        return Decision("", "no nodes available to schedule pods")
    volumes = PodVolumes(pod, storage)
    if volumes.refusal:
        return Decision("", f"0/{len(candidates)} nodes are available: {volumes.refusal}.", passing=volumes.passing)
    alive = [c for c in candidates if c.node.metadata.deletion_timestamp is None]
    rules, spread, wanted = PodRules(pod, alive, namespaces or {}), Spread(pod, alive), resources.requests(pod)

    def reasons(candidate: Candidate) -> list[str]:
        if candidate.node.metadata.deletion_timestamp is not None:
            return ["node(s) were being deleted"]
        if reason := refusal(pod, candidate):
            return [reason]
        if lacking := resources.lacking(wanted, candidate):
            return lacking
        if conflicts := volumes.conflicts(candidate.node):
            return conflicts
        reason = spread.refusal(candidate) or rules.refusal(candidate)
        return [reason] if reason else []

    def place(candidate: Candidate) -> tuple[int, int, int, int, int, str]:
        node = candidate.node
        preferred = nodeaffinity.preference(pod, node) + rules.preference(candidate)
        crowded = spread.cost(candidate)
        return taints.unwelcome(pod, node), -preferred, crowded, candidate.siblings, candidate.pods, node.name

    refusals = [reasons(candidate) for candidate in candidates]
    fitting = [c for c, refused in zip(candidates, refusals, strict=True) if not refused]
    if fitting:
        chosen = min(fitting, key=place).node
        return Decision(chosen.name, bindings=volumes.bindings(chosen) or NO_BINDINGS)
    counted = Counter(reason for refused in refusals for reason in refused)
    told = ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
    return Decision("", f"0/{len(candidates)} nodes are available: {told}.")
