"""Listens for the nodes' Leases; marks the silent, and collects the pods of those that are gone.

A node's silence is measured on this process's own clock, from when a new renewTime was last seen: clocks of machines
differ, and after a start, or a suspended laptop, every node has the whole grace again.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from kubesvc.api.coordination import NODE_LEASES, Lease
from kubesvc.api.endpoints import pod_is_finished
from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.labels import DNS_MANAGER, SLICE_MANAGED_BY
from kubesvc.api.nodes import Node, Taint
from kubesvc.api.pods import Pod
from kubesvc.api.registry import ENDPOINT_SLICE, NODE, POD
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import STRATEGIC_PATCH
from kubesvc.controllers.context import Context
from kubesvc.controllers.nodelifecycle import plan as planning
from kubesvc.controllers.readiness import condition
from kubesvc.controllers.writer import together

log = logging.getLogger(__name__)

COMPONENT = "node-controller"
DNS_SERVICE = ("kube-system", "kube-dns")
SLACK = 0.05  # seconds a timer is late, so that it isn't early


class NodeLifecycleController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self._clock = asyncio.get_running_loop().time
        self._heard: dict[str, float] = {}  # node -> when it was last heard of
        self._missed: dict[str, float] = {}  # node that pods name but that isn't there -> since when
        self._banned: dict[str, dict[Taint, datetime]] = {}  # node -> its taints NoExecute -> when first seen
        self.queue: WorkQueue[str] = WorkQueue("nodelifecycle")
        self._caches.leases.on_change(self._lease_changed)
        self._caches.nodes.on_change(self._node_changed)
        self._caches.pods.on_change(self._pod_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=4)

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        if new is None or new.namespace != NODE_LEASES:
            return
        if old is None or old.spec.renew_time != new.spec.renew_time:
            self._heard[new.name] = self._clock()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        changed = new or old
        assert changed is not None
        if new is None:
            self._heard.pop(changed.name, None)
            self._banned.pop(changed.name, None)
        elif old is None or _heartbeat(old) != _heartbeat(new):
            self._heard[new.name] = self._clock()
        if old is None or new is None or _facts(old) != _facts(new):
            self.queue.add(changed.name)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """A pod on a node that isn't there, isn't ready or drives pods away is looked at."""
        if new is None or not new.spec.node_name:
            return
        node: Node | None = self._caches.nodes.get("", new.spec.node_name)
        if node is None or _is_down(node) or planning.banning(node):
            self.queue.add(new.spec.node_name)

    async def reconcile(self, name: str) -> None:
        node: Node | None = self._caches.nodes.get("", name)
        if node is None:
            await self._collect(name)
            return
        self._missed.pop(name, None)
        silence = self._clock() - self._heard.setdefault(name, self._clock())
        if silence >= self._context.config.node_grace:
            node = await self._silence(node, silence)
        else:
            self.queue.add_after(name, self._context.config.node_grace - silence + SLACK)
        wanted = planning.taints(node)
        if wanted is not None:
            await self._context.writer.patch(NODE, node, planning.taint_patch(node, wanted))
        if _is_down(node):
            await self._close(node)
        await self._banish(node)

    async def _banish(self, node: Node) -> None:
        """The pods that don't tolerate a taint NoExecute, or not for so long, go."""
        now, seen = self._context.now(), self._banned.get(node.name, {})
        since = {taint: seen.get(taint, now) for taint in planning.banning(node)}
        self._banned[node.name] = since
        await self._evict(node, *planning.banned(self._caches.pods.by_index("node", node.name), since, now))

    async def _silence(self, node: Node, seconds: float) -> Node:
        patch = planning.silenced(node, self._context.now())
        if patch is None:
            return node
        log.warning("node %s: not heard of for %.1f s", node.name, seconds)
        meta = {"metadata": {"resourceVersion": node.metadata.resource_version}}
        await self._context.writer.patch(NODE, node, meta | patch, subresource="status", patch_type=STRATEGIC_PATCH)
        text = f"Node {node.name} status is now: NodeNotReady"
        self._context.recorder.record(COMPONENT, NODE, node, "Normal", "NodeNotReady", text)
        found: Node | None = self._caches.nodes.get("", node.name)
        if found is None:
            raise Conflict(f"node {node.name} is gone")
        return found

    async def _close(self, node: Node) -> None:
        """Nothing on it is ready; what may not stay goes."""
        writer, now = self._context.writer, self._context.now()
        pods: list[Pod] = self._caches.pods.by_index("node", node.name)
        marked = planning.to_mark(pods)
        patch = planning.not_ready(now)
        await together(
            writer.patch(POD, pod, patch, subresource="status", patch_type=STRATEGIC_PATCH) for pod in marked
        )
        for pod in marked:
            self._context.recorder.record(COMPONENT, POD, pod, "Warning", "NodeNotReady", "Node is not ready")
        slices = [
            s
            for s in self._caches.slices.by_index("service", DNS_SERVICE)
            if s.metadata.labels.get(SLICE_MANAGED_BY) == DNS_MANAGER
        ]
        closing = [(s, change) for s in slices if (change := planning.closed(s, node.name)) is not None]
        await together(writer.patch(ENDPOINT_SLICE, s, change) for s, change in closing)
        await self._evict(node, *planning.evictions(node, pods, now))

    async def _evict(self, node: Node, due: list[Pod], wait: float | None) -> None:
        for pod in due:
            text = f"Marking for deletion Pod {pod.namespace}/{pod.name}"
            self._context.recorder.record("taint-eviction-controller", POD, pod, "Normal", "TaintManagerEviction", text)
        await together(self._delete_banished(pod) for pod in due)
        if wait is not None:
            self.queue.add_after(node.name, wait + SLACK)

    async def _delete_banished(self, pod: Pod) -> None:
        patch = planning.banished(self._context.now())
        await self._context.writer.patch(POD, pod, patch, subresource="status", patch_type=STRATEGIC_PATCH)
        await self._context.writer.delete(POD, pod)

    async def _collect(self, name: str) -> None:
        """Delete the pods of a node that has been gone for a while, also for the server."""
        pods: list[Pod] = self._caches.pods.by_index("node", name)
        if not pods or not name:
            self._missed.pop(name, None)
            return
        gone_for = self._clock() - self._missed.setdefault(name, self._clock())
        left = self._context.config.gone_node_grace - gone_for
        if left > 0:
            self.queue.add_after(name, left + SLACK)
            return
        try:
            await self._context.session.get(NODE, "", name)
        except NotFound:
            log.info("node %s is gone: its %d pods are deleted", name, len(pods))
            await together(self._delete_lost(pod) for pod in pods)

    async def _delete_lost(self, pod: Pod) -> None:
        if not pod_is_finished(pod):
            patch = planning.lost(self._context.now())
            await self._context.writer.patch(POD, pod, patch, subresource="status", patch_type=STRATEGIC_PATCH)
        await self._context.writer.delete(POD, pod, grace_seconds=0)


def _is_down(node: Node) -> bool:
    """It has said, or it was said of it, that it isn't ready; one that never said anything is only new."""
    ready = condition(node.status.conditions, "Ready")
    return ready is not None and ready.status != "True"


def _heartbeat(node: Node) -> object:
    ready = condition(node.status.conditions, "Ready")
    return (ready.last_heartbeat_time, ready.status == "True") if ready else None


def _facts(node: Node) -> object:
    ready = condition(node.status.conditions, "Ready")
    return (node.metadata.uid, ready.status if ready else "", node.spec.taints)
