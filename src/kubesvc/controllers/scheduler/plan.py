"""Which node a pod goes to, or why it fits nowhere.

Filters, in upstream's order and words: unschedulable, taints, node selector, free host ports. Of the nodes left: the
one with the fewest pods of the same owner (a Service's replicas spread), then the fewest pods at all, then the first
name. A node that isn't Ready counts as tainted not-ready:NoSchedule, which a pod may tolerate. Resources, affinity and
priorities are left out: nothing here accounts for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kubesvc.api.core import Node, Pod, Taint, Toleration

UNSCHEDULABLE = Taint("node.kubernetes.io/unschedulable", "NoSchedule")
NOT_READY = Taint("node.kubernetes.io/not-ready", "NoSchedule")


class HostPort(NamedTuple):
    protocol: str
    port: int
    address: str  # "" and 0.0.0.0 are all of them


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node with what runs there: how many pods of the same owner, how many at all, which host ports are taken."""

    node: Node
    siblings: int = 0
    pods: int = 0
    host_ports: frozenset[HostPort] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Decision:
    """The node's name, or "" and the message that says why none fits."""

    node: str
    message: str = ""


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


def tolerates(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Whether one of `tolerations` covers `taint`: an empty key with Exists covers all, an empty effect every one."""
    return any(
        (not t.effect or t.effect == taint.effect)
        and (t.key == taint.key or (not t.key and t.operator == "Exists"))
        and (t.operator == "Exists" or t.value == taint.value)
        for t in tolerations
    )


def refusal(pod: Pod, candidate: Candidate) -> str:
    """Why the pod can't run there, in upstream's words; "" when it can."""
    node, tolerations = candidate.node, pod.spec.tolerations
    if node.spec.unschedulable and not tolerates(tolerations, UNSCHEDULABLE):
        return "node(s) were unschedulable"
    taints = [*node.spec.taints, *([] if node.ready else [NOT_READY])]
    for taint in taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    if not pod.spec.node_selector.items() <= node.metadata.labels.items():
        return "node(s) didn't match Pod's node affinity/selector"
    if _collide(host_ports(pod), candidate.host_ports):
        return "node(s) didn't have free ports for the requested pod ports"
    return ""


def plan(pod: Pod, candidates: Sequence[Candidate]) -> Decision:
    if not candidates:
        return Decision("", "no nodes available to schedule pods")
    refusals = {c.node.name: refusal(pod, c) for c in candidates}
    fitting = [c for c in candidates if not refusals[c.node.name] and c.node.metadata.deletion_timestamp is None]
    if fitting:
        return Decision(min(fitting, key=lambda c: (c.siblings, c.pods, c.node.name)).node.name)
    reasons = Counter(r or "node(s) were being deleted" for r in refusals.values())
    told = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return Decision("", f"0/{len(candidates)} nodes are available: {told}.")
