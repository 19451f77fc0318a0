"""Keeps one pod of each DaemonSet on every node that it fits, and rolls its template out.

A pod is bound to its node when it is created: the filters were the scheduler's, and there is nothing left to choose.
"""

from __future__ import annotations

import msgspec

from kubesvc.api.apps import DaemonSet
from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON
from kubesvc.api.nodes import Node
from kubesvc.api.registry import DAEMON_SET
from kubesvc.api.selectors import from_label_selector
from kubesvc.controllers import revisions
from kubesvc.controllers.context import Context
from kubesvc.controllers.daemonset.eligibility import pod_of, tolerations
from kubesvc.controllers.daemonset.plan import HASH, plan, status_patch
from kubesvc.controllers.history import History
from kubesvc.controllers.ownership import reference_to
from kubesvc.controllers.podcontrol import Key, PodControl
from kubesvc.controllers.templates import pod_tree
from kubesvc.controllers.writer import namespace_is_ending

COMPONENT = "daemonset-controller"


class DaemonSetController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._sets = context.caches.daemon_sets
        self._pods = PodControl(
            context, DAEMON_SET, COMPONENT, self._sets, lambda ds: from_label_selector(ds.spec.selector)
        )
        self._history = History(context, DAEMON_SET)
        context.caches.nodes.on_change(self._node_changed)

    async def run(self) -> None:
        await self._pods.queue.run(self.reconcile, workers=self._context.config.workers)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is not None and new is not None and _judged(old) == _judged(new):
            return  # a heartbeat
        for key in self._sets.items:
            self._pods.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        ds: DaemonSet | None = self._sets.items.get(key)
        if ds is None:
            return
        pods = await self._pods.claim(ds)
        if ds.metadata.deletion_timestamp is not None:
            return
        try:
            selector = from_label_selector(ds.spec.selector)
            newest = await self._history.newest(ds, selector, ds.spec.template, ds.status.collision_count)
            if newest is None:
                counted = msgspec.structs.replace(ds.status, collision_count=ds.status.collision_count + 1)
                await self._context.writer.patch(DAEMON_SET, ds, status_patch(counted), subresource="status")
                return
            hash_ = revisions.hash_of(newest)
            nodes = self._context.caches.nodes.items.values()
            decided = plan(ds, pods, nodes, pod_of(ds), hash_, self._context.now())
            if decided.status != ds.status:
                patch = status_patch(decided.status)
                await self._context.writer.patch(DAEMON_SET, ds, patch, subresource="status")
            for pod in decided.finished:
                where = f"{pod.namespace}/{pod.name} on node {pod.spec.node_name}"
                text = f"Found failed daemon pod {where}, will try to kill it"
                self._pods.say(ds, "FailedDaemonPod", text, warning=True)
            await self._pods.delete(ds, [*decided.delete, *decided.finished])
            await self._pods.create(ds, [self._pod(ds, node, hash_) for node in decided.create])
        except ApiError as error:
            if namespace_is_ending(error):
                return
            raise
        hashes = {hash_, *(p.metadata.labels.get(HASH) for p in pods)}
        in_use = {r.name for r in self._history.of(ds) if revisions.hash_of(r) in hashes}
        await self._history.prune(ds, in_use, ds.spec.revision_history_limit)
        if decided.again is not None:
            self._pods.queue.add_after(key, decided.again)

    def _pod(self, ds: DaemonSet, node: str, hash_: str) -> JSON:
        tree = pod_tree(ds.spec.template, ds, reference_to(DAEMON_SET, ds), labels={HASH: hash_})
        spec = tree["spec"]
        tree["spec"] = {**spec, "nodeName": node, "tolerations": tolerations(spec)}
        return tree


def _judged(node: Node) -> tuple[object, ...]:
    """What of a node decides about its pods."""
    return node.ready, node.spec, node.metadata.labels, node.metadata.deletion_timestamp
