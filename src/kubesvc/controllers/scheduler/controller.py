"""Binds each pod without a node to one, one pod at a time: each decision sees the bindings before it.

A pod that fits nowhere says so in its PodScheduled condition, and is tried again when a node changes, a pod leaves, or
something happens to its claims. One that claims are to be bound for first waits with its place kept (binder.py). Late
claims of pods that others bind are seen to as well.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from kubesvc.api.endpoints import pod_is_finished
from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.meta import JSON, Object, format_time
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.registry import POD
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import STRATEGIC_PATCH
from kubesvc.controllers.context import Context
from kubesvc.controllers.ownership import controller_of
from kubesvc.controllers.readiness import condition, is_active
from kubesvc.controllers.scheduler import podaffinity, resources
from kubesvc.controllers.scheduler.binder import TIMED_OUT, VolumeBinder
from kubesvc.controllers.scheduler.plan import Decision, host_ports, plan
from kubesvc.controllers.scheduler.snapshot import Candidate
from kubesvc.controllers.scheduler.volumes import PodVolumes, holds_back

Key = tuple[str, str]
COMPONENT = "default-scheduler"
MOMENT = 0.25  # seconds in which a new claim may be made and bound before anybody is told that it isn't
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
        self._unplaced: dict[Key, datetime] = {}  # pods that fit nowhere, in the order they came -> since when
        self.queue: WorkQueue[Key] = WorkQueue("scheduler")
        self._caches.pods.index("repels", lambda p: (True,) if podaffinity.repels(p) else ())
        self._caches.pods.on_change(self._pod_changed)
        self._caches.nodes.on_change(self._node_changed)
        self._binder = VolumeBinder(context)
        self._caches.claims.on_change(self._claim_changed)
        self._caches.volumes.on_change(self._storage_changed)
        self._caches.storage_classes.on_change(self._storage_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and waits(new):
            self.queue.add(new.key)
            return
        if old is not None and old.spec.node_name and (new is None or pod_is_finished(new)):
            self._try_again()  # room was made
        elif new is not None and (old is None or _place(old) != _place(new)):
            self._try_again()  # somebody to be near to, or further from
        pod = new or old
        assert pod is not None
        self._unplaced.pop(pod.key, None)
        if self._binder.forget(pod.key) and not pod.spec.node_name:
            self._try_again()
        if new is not None and new.spec.volumes and is_active(new):
            self.queue.add(new.key)  # others bind pods too

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Anything but a heartbeat may make room."""
        if old is None or new is None or _facts(old) != _facts(new):
            self._try_again()

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        claim = new or old
        assert claim is not None
        for pod in self._caches.pods.by_index("claim", claim.key):
            if pod.spec.node_name or pod.key in self._unplaced or pod.key in self._binder.reserved:
                self.queue.add(pod.key)

    def _storage_changed(self, old: Object | None, new: Object | None) -> None:
        """A volume that may be had, or reached from another node; a class that says more."""
        for key in self._unplaced:
            pod = self._caches.pods.items.get(key)
            if pod is not None and pod.spec.volumes:
                self.queue.add(key)

    def _try_again(self) -> None:
        for key in self._unplaced:
            self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        pod: Pod | None = self._caches.pods.items.get(key)
        if pod is None or not waits(pod):
            self._unplaced.pop(key, None)
            if pod is not None and pod.spec.node_name and pod.spec.volumes and is_active(pod):
                await self._provide(pod)
            return
        if key in self._binder.reserved and not await self._settle(pod):
            return
        namespaces = {n.name: n.metadata.labels for n in self._caches.namespaces.items.values()}
        decision = plan(pod, self._candidates(pod), namespaces, self._binder.storage(pod))
        if decision.bindings:
            self._unplaced.pop(key, None)
            await self._binder.begin(pod, decision)
            self.queue.add(key)
        elif decision.node:
            await self._bind(pod, decision.node)
            self._unplaced.pop(key, None)
        else:
            now = self._context.now()
            waited = (now - self._unplaced.setdefault(key, now)).total_seconds()
            if decision.passing and waited < MOMENT:
                self.queue.add_after(key, MOMENT - waited)
            else:
                await self._tell(pod, decision)

    async def _provide(self, pod: Pod) -> None:
        """What late claims get for a pod that somebody else placed: a DaemonSet's are bound when they are made."""
        node = self._caches.nodes.get("", pod.spec.node_name)
        storage = self._binder.storage(pod)
        volumes = PodVolumes(pod, storage)
        if node is None or holds_back(pod, storage.claims) or not volumes.waits:
            return
        bindings = volumes.bindings(node)
        if bindings is None:
            self._unplaced.setdefault(pod.key, self._context.now())
        else:
            await self._binder.give(bindings, node.name)

    async def _settle(self, pod: Pod) -> bool:
        """Bind a pod whose claims are bound by now; whether its place is to be looked for anew."""
        reserved = self._binder.reserved[pod.key]
        done = self._binder.progress(reserved) if reserved.pod.metadata.uid == pod.metadata.uid else None
        left = self._binder.left(reserved)
        if done is False and left > 0:
            self.queue.add_after(pod.key, left)
            return False
        self._binder.forget(pod.key)
        if done:
            await self._bind(pod, reserved.node)
            return False
        if done is False:
            await self._tell(pod, Decision("", TIMED_OUT), reason="SchedulerError")
        return True

    def _candidates(self, pod: Pod) -> list[Candidate]:
        """The nodes, with as much of what runs there as decides about this pod."""
        siblings = Counter(self._binder.node_of(p) for p in self._siblings(pod) if is_active(p))
        wants_ports, wants_resources = bool(host_ports(pod)), bool(resources.requests(pod))
        looks = podaffinity.looks(pod) or bool(pod.spec.topology_spread_constraints)
        repelling: dict[str, list[Pod]] = {}
        for other in self._caches.pods.by_index("repels", True):
            repelling.setdefault(other.spec.node_name, []).append(other)
        found = []
        for node in self._caches.nodes.items.values():
            coming = self._binder.places(node.name)
            count = self._caches.pods.count("node", node.name) + len(coming)
            there: list[Pod] = []
            if wants_ports or wants_resources or looks or count >= FULL:
                there = [p for p in self._caches.pods.by_index("node", node.name) if not pod_is_finished(p)]
                there += coming
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

    async def _tell(self, pod: Pod, decision: Decision, reason: str = "Unschedulable") -> None:
        before = condition(pod.status.conditions, "PodScheduled")
        if before is not None and (before.status, before.message) == ("False", decision.message):
            return
        since = before.last_transition_time if before is not None and before.status == "False" else None
        told: JSON = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
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
