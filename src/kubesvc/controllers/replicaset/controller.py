"""Keeps as many pods as each ReplicaSet asks for, adopts those that fit, and counts them in the status."""

from __future__ import annotations

import asyncio

from kubesvc.api.apps import ReplicaSet
from kubesvc.api.core import Pod
from kubesvc.api.errors import ApiError
from kubesvc.api.meta import Condition
from kubesvc.api.registry import POD, REPLICA_SET
from kubesvc.api.selectors import Selector, from_label_selector, matches
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.ownership import adoption, claim, controller_of, reference_to, without_owners
from kubesvc.controllers.replicaset.plan import failure_condition, plan, pod_tree, status_patch
from kubesvc.controllers.writer import namespace_is_ending, together

Key = tuple[str, str]
COMPONENT = "replicaset-controller"


class ReplicaSetController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.queue: WorkQueue[Key] = WorkQueue("replicaset")
        self._caches.replica_sets.on_change(self._replica_set_changed)
        self._caches.pods.on_change(self._pod_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=self._context.config.workers)

    def _replica_set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        if new is not None:
            self.queue.add(new.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            controller = controller_of(pod)
            if controller is not None and controller.kind == "ReplicaSet":
                self.queue.add((pod.namespace, controller.name))
            elif controller is None:
                for rs in self._caches.replica_sets.by_index("namespace", pod.namespace):
                    if matches(_selector(rs), pod.metadata.labels):
                        self.queue.add(rs.key)

    async def reconcile(self, key: Key) -> None:
        rs: ReplicaSet | None = self._caches.replica_sets.items.get(key)
        if rs is None:
            return
        pods = await self._claim(rs)
        now = self._context.now()
        decided = plan(rs, pods, self._neighbours(rs, pods), now)
        failure: Condition | None = None
        error: ApiError | None = None
        try:
            await self._create(rs, decided.create)
            await self._delete(rs, decided.delete)
        except ApiError as refused:
            error = refused
            reason = "FailedCreate" if decided.create else "FailedDelete"
            failure = failure_condition(rs.status.conditions, reason, refused.message, now)
        status = plan(rs, pods, (), now, failure).status
        if status != rs.status:
            await self._context.writer.patch(REPLICA_SET, rs, status_patch(status), subresource="status")
        if decided.again is not None:
            self.queue.add_after(key, decided.again)
        if error is not None and not namespace_is_ending(error):
            raise error

    async def _claim(self, rs: ReplicaSet) -> list[Pod]:
        candidates: list[Pod] = self._caches.controlled_or_orphans(self._caches.pods, rs)
        claims = claim(rs, _selector(rs), candidates)
        if claims.adopt:  # never for one that is gone: ask the server itself
            await self._context.session.get(REPLICA_SET, rs.namespace, rs.name)
        for pod in claims.adopt:
            await self._context.writer.patch(POD, pod, adoption(REPLICA_SET, rs, pod))
        for pod in claims.release:
            await self._context.writer.patch(POD, pod, without_owners(pod, frozenset([rs.metadata.uid])))
        return claims.owned

    def _neighbours(self, rs: ReplicaSet, pods: list[Pod]) -> list[Pod]:
        """Pods of all ReplicaSets of the same Deployment; those of `rs` alone when it has none."""
        controller = controller_of(rs)
        if controller is None:
            return pods
        siblings = self._caches.replica_sets.by_index("controller", controller.uid)
        return [p for s in siblings for p in self._caches.pods.by_index("controller", s.metadata.uid)]

    async def _create(self, rs: ReplicaSet, count: int) -> None:
        """In batches of 1, 2, 4, …: a template that the server refuses costs one request, not hundreds."""
        batch = 1
        while count > 0:
            batch = min(batch, count)
            tree = pod_tree(rs, reference_to(REPLICA_SET, rs))
            creations = (self._context.writer.create(POD, tree) for _ in range(batch))
            outcomes = await asyncio.gather(*creations, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, dict):
                    self._say(rs, "Normal", "SuccessfulCreate", f"Created pod: {outcome['metadata']['name']}")
            for outcome in outcomes:
                if isinstance(outcome, ApiError) and not namespace_is_ending(outcome):
                    self._say(rs, "Warning", "FailedCreate", f"Error creating: {outcome.message}")
                if isinstance(outcome, BaseException):
                    raise outcome
            count -= batch
            batch *= 2

    async def _delete(self, rs: ReplicaSet, pods: tuple[Pod, ...]) -> None:
        async def one(pod: Pod) -> None:
            await self._context.writer.delete(POD, pod)
            self._say(rs, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")

        await together(map(one, pods))

    def _say(self, rs: ReplicaSet, type_: str, reason: str, message: str) -> None:
        self._context.recorder.record(COMPONENT, REPLICA_SET, rs, type_, reason, message)


def _selector(rs: ReplicaSet) -> Selector:
    return from_label_selector(rs.spec.selector)
