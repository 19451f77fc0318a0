"""Lets go of claims and volumes that are deleted when nothing uses them any more.

Of claims the server itself is asked before: the caches of claims and of pods may be at different revisions.
"""

from __future__ import annotations

from kubesvc.api.meta import Object
from kubesvc.api.pods import Pod
from kubesvc.api.registry import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD
from kubesvc.api.storage import PersistentVolume, PersistentVolumeClaim, claim_names
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.protection import plan

Key = tuple[str, str]  # of a volume: "", its name


class ProtectionController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.queue: WorkQueue[Key] = WorkQueue("protection")
        for informer in (self._caches.claims, self._caches.volumes):
            informer.on_change(self._changed)
        self._caches.pods.on_change(self._pod_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=self._context.config.workers)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and (plan.may_go(new) or plan.protect(new) is not None):
            self.queue.add(new.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """One that is gone, or done, may have been the last to use its claims."""
        if old is None or not old.spec.volumes:
            return
        for name in claim_names(old):
            claim = self._caches.claims.get(old.namespace, name)
            if claim is not None and plan.may_go(claim):
                self.queue.add(claim.key)

    async def reconcile(self, key: Key) -> None:
        volume: PersistentVolume | None = None if key[0] else self._caches.volumes.items.get(key)
        claim: PersistentVolumeClaim | None = self._caches.claims.items.get(key) if key[0] else None
        if volume is not None:
            await self._volume(volume)
        elif claim is not None:
            await self._claim(claim)

    async def _volume(self, volume: PersistentVolume) -> None:
        if patch := plan.protect(volume):
            await self._context.writer.patch(PERSISTENT_VOLUME, volume, patch)
        elif plan.may_go(volume) and volume.status.phase != "Bound":
            await self._context.writer.patch(PERSISTENT_VOLUME, volume, plan.release(volume))

    async def _claim(self, claim: PersistentVolumeClaim) -> None:
        if patch := plan.protect(claim):
            await self._context.writer.patch(PERSISTENT_VOLUME_CLAIM, claim, patch)
        elif plan.may_go(claim) and not await self._is_used(claim):
            await self._context.writer.patch(PERSISTENT_VOLUME_CLAIM, claim, plan.release(claim))

    async def _is_used(self, claim: PersistentVolumeClaim) -> bool:
        if plan.is_used(claim, self._caches.pods.by_index("claim", claim.key)):
            return True
        live = await self._context.session.list(POD, Pod, namespace=claim.namespace)
        return plan.is_used(claim, live.items)
