"""Keeps as many pods as each ReplicaSet asks for, adopts those that fit, and counts them in the status.

A ReplicationController is one with a simpler selector, and is kept the same way.
"""

from __future__ import annotations

from kubesvc.api.apps import ReplicaSet
from kubesvc.api.errors import ApiError
from kubesvc.api.meta import Condition
from kubesvc.api.pods import Pod
from kubesvc.api.registry import REPLICA_SET, REPLICATION_CONTROLLER, Kind
from kubesvc.api.selectors import from_label_selector
from kubesvc.client.informer import Informer
from kubesvc.controllers.context import Context
from kubesvc.controllers.ownership import controller_of, reference_to
from kubesvc.controllers.podcontrol import Key, PodControl
from kubesvc.controllers.replicaset.plan import failure_condition, plan, status_patch
from kubesvc.controllers.templates import pod_tree
from kubesvc.controllers.writer import namespace_is_ending


def replica_set_controller(context: Context) -> ReplicaSetController:
    return ReplicaSetController(context, REPLICA_SET, "replicaset-controller", context.caches.replica_sets)


def replication_controller(context: Context) -> ReplicaSetController:
    informer = context.caches.replication_controllers
    return ReplicaSetController(context, REPLICATION_CONTROLLER, "replication-controller", informer)


class ReplicaSetController:
    def __init__(self, context: Context, kind: Kind, component: str, sets: Informer[ReplicaSet]) -> None:
        self._context, self._kind, self._sets = context, kind, sets
        self._caches = context.caches
        self._pods = PodControl(context, kind, component, sets, lambda rs: from_label_selector(rs.spec.selector))

    async def run(self) -> None:
        await self._pods.queue.run(self.reconcile, workers=self._context.config.workers)

    async def reconcile(self, key: Key) -> None:
        rs: ReplicaSet | None = self._sets.items.get(key)
        if rs is None:
            return
        pods = await self._pods.claim(rs)
        now = self._context.now()
        decided = plan(rs, pods, self._neighbours(rs, pods), now)
        failure: Condition | None = None
        error: ApiError | None = None
        try:
            tree = pod_tree(rs.spec.template, rs, reference_to(self._kind, rs))
            await self._pods.create(rs, [tree] * decided.create)
            await self._pods.delete(rs, decided.delete)
        except ApiError as refused:
            error = refused
            reason = "FailedCreate" if decided.create else "FailedDelete"
            failure = failure_condition(rs.status.conditions, reason, refused.message, now)
        status = plan(rs, pods, (), now, failure).status
        if status != rs.status:
            await self._context.writer.patch(self._kind, rs, status_patch(status), subresource="status")
        if decided.again is not None:
            self._pods.queue.add_after(key, decided.again)
        if error is not None and not namespace_is_ending(error):
            raise error

    def _neighbours(self, rs: ReplicaSet, pods: list[Pod]) -> list[Pod]:
        """Pods of all ReplicaSets of the same Deployment; those of `rs` alone when it has none."""
        controller = controller_of(rs)
        if controller is None:
            return pods
        siblings = self._caches.replica_sets.by_index("controller", controller.uid)
        return [p for s in siblings for p in self._caches.pods.by_index("controller", s.metadata.uid)]
