"""Which nodes a DaemonSet's pods belong on, by the scheduler's own filters. Pure.

Pods of a DaemonSet tolerate what happens to nodes, as upstream: they go on where one is not ready or unreachable, and
start where it is cordoned.
"""

from __future__ import annotations

import msgspec

from kubesvc.api.apps import DaemonSet
from kubesvc.api.meta import JSON, ObjectMeta
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.controllers.scheduler import nodeaffinity
from kubesvc.controllers.scheduler.plan import refusal
from kubesvc.controllers.scheduler.snapshot import Candidate
from kubesvc.controllers.scheduler.taints import tolerates

_TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)
_ON_HOST_NETWORK = ("network-unavailable", "NoSchedule")


def tolerations(spec: JSON) -> list[JSON]:
    """Those of the template, and those every pod of a DaemonSet has."""
    ours = [*_TOLERATED, *([_ON_HOST_NETWORK] if spec.get("hostNetwork") else [])]
    added: list[JSON] = [
        {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect} for name, effect in ours
    ]
    return [*(t for t in spec.get("tolerations") or () if t not in added), *added]


def pod_of(ds: DaemonSet) -> Pod:
    """The template as a pod, for the filters."""
    spec = ds.spec.template.get("spec") or {}
    tree = {"spec": {**spec, "tolerations": tolerations(spec)}}
    return msgspec.structs.replace(msgspec.convert(tree, Pod), metadata=ObjectMeta(namespace=ds.namespace))


def should_start(pod: Pod, node: Node) -> bool:
    named = not pod.spec.node_name or pod.spec.node_name == node.name
    return named and node.metadata.deletion_timestamp is None and not refusal(pod, Candidate(node))


def may_stay(pod: Pod, node: Node) -> bool:
    """What runs is only driven out by another selector or affinity, or a NoExecute taint."""
    if pod.spec.node_name and pod.spec.node_name != node.name:
        return False
    if not nodeaffinity.matches(pod, node):
        return False
    return all(tolerates(pod.spec.tolerations, t) for t in node.spec.taints if t.effect == "NoExecute")
