"""Binds each pod without a node to one, one pod at a time: each decision sees the bindings before it.

A pod that fits nowhere says so in its PodScheduled condition, and is tried again when a node changes or a pod leaves.
"""

from __future__ import annotations

from collections import Counter

from kubesvc.api.endpoints import pod_is_finished
from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.registry import POD
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import STRATEGIC_PATCH
from kubesvc.controllers.context import Context
from kubesvc.controllers.ownership import controller_of
from kubesvc.controllers.readiness import condition, is_active
from kubesvc.controllers.scheduler import podaffinity, resources
from kubesvc.controllers.scheduler.plan import Decision, host_ports, plan
from kubesvc.controllers.scheduler.snapshot import Candidate

Key = tuple[str, str]
COMPONENT = "default-scheduler"
FULL = 100  # pods on a node, from which on it matters which of them have finished


def waits(pod: Pod | None) -> bool:
    """Whether the pod is ours to place."""
    return (
        pod is not None
        and not pod.spec.node_name
        and pod.spec.scheduler_name in ("", COMPONENT)
        and not pod.spec.scheduling_gates
        and pod.metadata.deletion_timestamp is None
        and not pod_is_finished(pod)
    )


class SchedulerController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self._unplaced: dict[Key, None] = {}  # pods that fit nowhere, in the order they came
        self.queue: WorkQueue[Key] = WorkQueue("scheduler")
        self._caches.pods.index("repels", lambda p: (True,) if podaffinity.repels(p) else ())
        self._caches.pods.on_change(self._pod_changed)
        self._caches.nodes.on_change(self._node_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and waits(new):
            self.queue.add(new.key)
        elif old is not None and old.spec.node_name and (new is None or pod_is_finished(new)):
            self._try_again()  # room was made
        elif new is not None and (old is None or _place(old) != _place(new)):
            self._try_again()  # somebody to be near to, or further from
        if new is None and old is not None:
            self._unplaced.pop(old.key, None)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Anything but a heartbeat may make room."""
        if old is None or new is None or _facts(old) != _facts(new):
            self._try_again()

    def _try_again(self) -> None:
        for key in self._unplaced:
            self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        pod: Pod | None = self._caches.pods.items.get(key)
        if pod is None or not waits(pod):
            self._unplaced.pop(key, None)
            return
        namespaces = {n.name: n.metadata.labels for n in self._caches.namespaces.items.values()}
        decision = plan(pod, self._candidates(pod), namespaces)
        if decision.node:
            await self._bind(pod, decision.node)
            self._unplaced.pop(key, None)
        else:
            self._unplaced[key] = None
            await self._tell(pod, decision)

    def _candidates(self, pod: Pod) -> list[Candidate]:
        """The nodes, with as much of what runs there as decides about this pod."""
        siblings = Counter(p.spec.node_name for p in self._siblings(pod) if is_active(p))
        wants_ports, wants_resources = bool(host_ports(pod)), bool(resources.requests(pod))
        looks = podaffinity.looks(pod) or bool(pod.spec.topology_spread_constraints)
        repelling: dict[str, list[Pod]] = {}
        for other in self._caches.pods.by_index("repels", True):
            repelling.setdefault(other.spec.node_name, []).append(other)
        found = []
        for node in self._caches.nodes.items.values():
            count = self._caches.pods.count("node", node.name)
            there: list[Pod] = []
            if wants_ports or wants_resources or looks or count >= FULL:
                there = [p for p in self._caches.pods.by_index("node", node.name) if not pod_is_finished(p)]
                count = len(there)
            found.append(
                Candidate(
                    node,
                    siblings[node.name],
                    count,
                    frozenset(h for p in there for h in host_ports(p)) if wants_ports else frozenset(),
                    resources.requested(there) if wants_resources else {},
                    there if looks else [p for p in repelling.get(node.name, ()) if not pod_is_finished(p)],
                )
            )
        return found

    def _siblings(self, pod: Pod) -> list[Pod]:
        """Replicas of one controller; pods without any are alike when they have the same labels."""
        controller = controller_of(pod)
        if controller is not None:
            return self._caches.pods.by_index("controller", controller.uid)
        labels = pod.metadata.labels
        others = self._caches.pods.by_index("controller", ("orphan", pod.namespace))
        return [p for p in others if labels and p.metadata.labels == labels]

    async def _bind(self, pod: Pod, node: str) -> None:
        binding: JSON = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.metadata.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._context.writer.bind(pod, binding)
        except (Conflict, NotFound):
            return  # bound by somebody else, or gone: its event comes by
        text = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
        self._context.recorder.record(COMPONENT, POD, pod, "Normal", "Scheduled", text)

    async def _tell(self, pod: Pod, decision: Decision) -> None:
        before = condition(pod.status.conditions, "PodScheduled")
        if before is not None and (before.status, before.message) == ("False", decision.message):
            return
        since = before.last_transition_time if before is not None and before.status == "False" else None
        told: JSON = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": decision.message,
            "lastTransitionTime": since or format_time(self._context.now()),
        }
        patch = {"status": {"conditions": [told]}}
        await self._context.writer.patch(POD, pod, patch, subresource="status", patch_type=STRATEGIC_PATCH)
        self._context.recorder.record(COMPONENT, POD, pod, "Warning", "FailedScheduling", decision.message)


def _place(pod: Pod) -> object:
    return pod.spec.node_name, pod.metadata.labels


def _facts(node: Node) -> object:
    said = {c.type: c.status for c in node.status.conditions}
    return (node.spec, node.metadata.labels, node.status.allocatable, said)
