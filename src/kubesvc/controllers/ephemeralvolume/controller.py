"""Makes the claims of pods' ephemeral volumes, and again what was deleted under a pod that goes on."""

from __future__ import annotations

from kubesvc.api.errors import ApiError
from kubesvc.api.pods import Pod
from kubesvc.api.registry import PERSISTENT_VOLUME_CLAIM, POD
from kubesvc.api.storage import PersistentVolumeClaim
from kubesvc.client.events import WARNING
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.ephemeralvolume.plan import plan
from kubesvc.controllers.writer import namespace_is_ending

Key = tuple[str, str]
COMPONENT = "ephemeral_volume"


class EphemeralVolumeController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.queue: WorkQueue[Key] = WorkQueue("ephemeralvolume")
        self._caches.pods.on_change(self._pod_changed)
        self._caches.claims.on_change(self._claim_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=self._context.config.workers)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or not new.spec.volumes:
            return
        if old is None or old.metadata.uid != new.metadata.uid:
            self._add(new)

    def _claim_changed(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        """One that is gone may be made."""
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            for pod in self._caches.pods.by_index("claim", old.key):
                self._add(pod)

    def _add(self, pod: Pod) -> None:
        if any(volume.ephemeral for volume in pod.spec.volumes):
            self.queue.add(pod.key)

    async def reconcile(self, key: Key) -> None:
        pod: Pod | None = self._caches.pods.items.get(key)
        if pod is None:
            return
        decided = plan(pod, lambda name: self._caches.claims.get(pod.namespace, name))
        for refused in decided.refused:
            self._say(pod, refused)
        for tree in decided.create:
            name = tree["metadata"]["name"]
            try:
                await self._context.writer.create(PERSISTENT_VOLUME_CLAIM, tree)
            except ApiError as error:
                if namespace_is_ending(error):
                    return
                volume = name.removeprefix(f"{pod.name}-")
                self._say(pod, f"ephemeral volume {volume}: create PVC {name}: {error.message}")
                raise

    def _say(self, pod: Pod, message: str) -> None:
        self._context.recorder.record(COMPONENT, POD, pod, WARNING, "FailedBinding", message)
