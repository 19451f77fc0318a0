"""Carries out rollouts: one step a pass, the next one when a ReplicaSet's status has followed."""

from __future__ import annotations

import logging

from kubesvc.api.apps import Deployment, ReplicaSet
from kubesvc.api.endpoints import pod_is_finished
from kubesvc.api.errors import AlreadyExists, ApiError
from kubesvc.api.labels import DEPLOYMENT_REVISION
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.api.registry import DEPLOYMENT, REPLICA_SET
from kubesvc.api.selectors import from_label_selector, matches
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.deployment import rolling, template
from kubesvc.controllers.deployment import status as statuses
from kubesvc.controllers.deployment.plan import Plan, plan
from kubesvc.controllers.ownership import adoption, claim, controller_of, without_owners
from kubesvc.controllers.writer import namespace_is_ending

log = logging.getLogger(__name__)

Key = tuple[str, str]
COMPONENT = "deployment-controller"


class DeploymentController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.queue: WorkQueue[Key] = WorkQueue("deployment")
        self._caches.deployments.on_change(self._deployment_changed)
        self._caches.replica_sets.on_change(self._replica_set_changed)
        self._caches.pods.on_change(self._pod_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=self._context.config.workers)

    def _deployment_changed(self, old: Deployment | None, new: Deployment | None) -> None:
        if new is not None:
            self.queue.add(new.key)

    def _replica_set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        for rs in (old, new):
            if rs is None:
                continue
            controller = controller_of(rs)
            if controller is not None:
                self.queue.add((rs.namespace, controller.name))
                continue
            for deployment in self._caches.deployments.by_index("namespace", rs.namespace):
                if matches(from_label_selector(deployment.spec.selector), rs.metadata.labels):
                    self.queue.add(deployment.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Recreate waits for the last old pod to be gone."""
        if old is None or new is not None:
            return
        controller = controller_of(old)
        rs = self._caches.replica_sets.get(old.namespace, controller.name) if controller else None
        if rs is not None:
            self._replica_set_changed(None, rs)

    async def reconcile(self, key: Key) -> None:
        deployment: Deployment | None = self._caches.deployments.items.get(key)
        if deployment is None:
            return
        sets = await self._claim(deployment)
        decided = plan(deployment, sets, self._context.now(), old_pods_left=self._old_pods_left(deployment, sets))
        if decided.create is not None and not await self._create(deployment, decided.create):
            return
        await self._write_sets(deployment, {rs.name: rs for rs in sets}, decided)
        if decided.revision is not None:
            annotation = {DEPLOYMENT_REVISION: decided.revision}
            await self._context.writer.patch(DEPLOYMENT, deployment, {"metadata": {"annotations": annotation}})
        for rs in decided.delete:
            await self._context.writer.delete(REPLICA_SET, rs)
        if decided.status != deployment.status:
            patch = statuses.patch(decided.status)
            await self._context.writer.patch(DEPLOYMENT, deployment, patch, subresource="status")
        if decided.again is not None and decided.again > 0:
            self.queue.add_after(key, decided.again + 1)

    async def _claim(self, deployment: Deployment) -> list[ReplicaSet]:
        candidates: list[ReplicaSet] = self._caches.controlled_or_orphans(self._caches.replica_sets, deployment)
        claims = claim(deployment, from_label_selector(deployment.spec.selector), candidates)
        if claims.adopt:  # never for one that is gone: ask the server itself
            await self._context.session.get(DEPLOYMENT, deployment.namespace, deployment.name)
        for rs in claims.adopt:
            await self._context.writer.patch(REPLICA_SET, rs, adoption(DEPLOYMENT, deployment, rs))
        for rs in claims.release:
            patch = without_owners(rs, frozenset([deployment.metadata.uid]))
            await self._context.writer.patch(REPLICA_SET, rs, patch)
        return claims.owned

    def _old_pods_left(self, deployment: Deployment, sets: list[ReplicaSet]) -> bool:
        """Only Recreate asks."""
        if rolling.is_rolling(deployment):
            return False
        new = template.with_template(deployment, sets)
        old = [rs for rs in sets if rs is not new]
        pods = (p for rs in old for p in self._caches.pods.by_index("controller", rs.metadata.uid))
        return any(not pod_is_finished(p) for p in pods)

    async def _create(self, deployment: Deployment, tree: JSON) -> bool:
        """False when nothing came of it and there is nothing more to do now."""
        name = tree["metadata"]["name"]
        try:
            await self._context.writer.create(REPLICA_SET, tree)
        except AlreadyExists:  # the name is taken by another template: hash again
            log.info("deployment %s/%s: ReplicaSet name %s is taken", deployment.namespace, deployment.name, name)
            count = deployment.status.collision_count + 1
            patch = {"status": {"collisionCount": count}}
            await self._context.writer.patch(DEPLOYMENT, deployment, patch, subresource="status")
            return False
        except ApiError as error:
            if namespace_is_ending(error):
                return False
            raise
        if size := tree["spec"]["replicas"]:
            self._say_scaled(deployment, name, 0, size)
        return True

    async def _write_sets(self, deployment: Deployment, sets: dict[str, ReplicaSet], decided: Plan) -> None:
        for name in {*decided.resize, *decided.annotate, *decided.min_ready}:
            rs = sets[name]
            spec: JSON = {}
            if name in decided.resize:
                spec["replicas"] = decided.resize[name]
            if name in decided.min_ready:
                spec["minReadySeconds"] = decided.min_ready[name]
            meta: JSON = {"uid": rs.metadata.uid}
            if name in decided.annotate:
                meta["annotations"] = decided.annotate[name]
            patch: JSON = {"metadata": meta} | ({"spec": spec} if spec else {})
            await self._context.writer.patch(REPLICA_SET, rs, patch)
            if name in decided.resize:
                self._say_scaled(deployment, name, rs.spec.replicas, decided.resize[name])

    def _say_scaled(self, deployment: Deployment, name: str, old: int, new: int) -> None:
        way = "up" if new > old else "down"
        text = f"Scaled {way} replica set {name} from {old} to {new}"
        self._context.recorder.record(COMPONENT, DEPLOYMENT, deployment, "Normal", "ScalingReplicaSet", text)
