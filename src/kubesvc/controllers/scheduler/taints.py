"""Taints and tolerations. Pure. A node that isn't Ready counts as tainted not-ready:NoSchedule, one under pressure as
tainted disk-pressure, memory-pressure or pid-pressure."""

from __future__ import annotations

from collections.abc import Sequence

from kubesvc.api.nodes import Node, Taint
from kubesvc.api.pods import Pod, Toleration

UNSCHEDULABLE = Taint("node.kubernetes.io/unschedulable", "NoSchedule")
NOT_READY = Taint("node.kubernetes.io/not-ready", "NoSchedule")
PRESSURES = {
    "DiskPressure": Taint("node.kubernetes.io/disk-pressure", "NoSchedule"),
    "MemoryPressure": Taint("node.kubernetes.io/memory-pressure", "NoSchedule"),
    "PIDPressure": Taint("node.kubernetes.io/pid-pressure", "NoSchedule"),
}


def tolerates(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Whether one of `tolerations` covers `taint`: an empty key with Exists covers all, an empty effect every one."""
    return any(
        (not t.effect or t.effect == taint.effect)
        and (t.key == taint.key or (not t.key and t.operator == "Exists"))
        and (t.operator == "Exists" or t.value == taint.value)
        for t in tolerations
    )


def refusal(pod: Pod, node: Node) -> str:
    """The reason, in upstream's words, that the pod may not come to the node; "" when it may."""
    tolerations = pod.spec.tolerations
    if node.spec.unschedulable and not tolerates(tolerations, UNSCHEDULABLE):
        return "node(s) were unschedulable"
    for taint in [*node.spec.taints, *([] if node.ready else [NOT_READY]), *_pressures(node)]:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    return ""


def _pressures(node: Node) -> list[Taint]:
    return [PRESSURES[c.type] for c in node.status.conditions if c.status == "True" and c.type in PRESSURES]


def unwelcome(pod: Pod, node: Node) -> int:
    """How many taints would rather not have the pod."""
    soft = [t for t in node.spec.taints if t.effect == "PreferNoSchedule"]
    return sum(1 for taint in soft if not tolerates(pod.spec.tolerations, taint))
