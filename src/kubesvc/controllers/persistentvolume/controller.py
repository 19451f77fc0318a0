"""One key for all claims and volumes: each choice depends on all the others. The directories are made and removed here:
a box's nodes share its disk, so that a claim's data is where its pod goes."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from kubesvc.api.errors import AlreadyExists
from kubesvc.api.meta import JSON, Object
from kubesvc.api.pods import Pod
from kubesvc.api.registry import PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM
from kubesvc.api.storage import PersistentVolume, PersistentVolumeClaim
from kubesvc.client.events import NORMAL, WARNING
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.persistentvolume import plan as planning
from kubesvc.controllers.readiness import condition, is_active

log = logging.getLogger(__name__)

COMPONENT = "persistentvolume-controller"


class PersistentVolumeController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self._told: dict[str, str] = {}  # uid of a claim that waits -> why, as an Event has said
        self.queue: WorkQueue[str] = WorkQueue("persistentvolume")
        for informer in (self._caches.claims, self._caches.volumes, self._caches.storage_classes):
            informer.on_change(self._changed)
        self._caches.pods.on_change(self._pod_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self.queue.add("volumes")

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """One that finds no place is why a claim waits."""
        if new is not None and new.spec.volumes and not new.spec.node_name:
            scheduled = condition(new.status.conditions, "PodScheduled")
            if scheduled is not None and scheduled.status == "False":
                self.queue.add("volumes")

    def _consumers(self, claim: PersistentVolumeClaim) -> list[str]:
        pods: list[Pod] = self._caches.pods.by_index("claim", claim.key)
        return sorted(p.name for p in pods if not p.spec.node_name and is_active(p))

    async def reconcile(self, key: str) -> None:
        caches, writer = self._caches, self._context.writer
        directory = self._context.config.volumes
        classes = {found.name: found for found in caches.storage_classes.items.values()}
        claims, volumes = caches.claims.items.values(), caches.volumes.items.values()
        found = planning.plan(claims, volumes, classes, directory, self._consumers)
        for volume, phase in found.phases:
            await writer.patch(PERSISTENT_VOLUME, volume, {"status": {"phase": phase}}, subresource="status")
        for claim, name in found.name_class:
            await writer.patch(PERSISTENT_VOLUME_CLAIM, claim, {"spec": {"storageClassName": name}})
        for claim, tree in found.make:
            await asyncio.to_thread(_make, Path(tree["spec"]["hostPath"]["path"]))
            try:
                await writer.create(PERSISTENT_VOLUME, tree)
            except AlreadyExists:
                continue
            text = f"Successfully provisioned volume {tree['metadata']['name']}"
            self._tell(claim, NORMAL, "ProvisioningSucceeded", text)
        for claim, volume in found.bind:
            await self._bind(claim, volume)
        for volume in found.remove:
            path = Path(volume.spec.path)
            if directory and path.parent == Path(directory):
                await asyncio.to_thread(shutil.rmtree, path, True)
            if volume.status.phase != "Released":  # one that is deleted already goes with this
                await writer.patch(PERSISTENT_VOLUME, volume, {"status": {"phase": "Released"}}, subresource="status")
            await writer.delete(PERSISTENT_VOLUME, volume)

        for claim, reason, text in found.waiting:
            if self._told.get(claim.metadata.uid) != text:
                self._tell(claim, WARNING if reason == "ProvisioningFailed" else NORMAL, reason, text)
        self._told = {claim.metadata.uid: text for claim, _, text in found.waiting}

    async def _bind(self, claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
        """The volume first: it is what says whose it is."""
        writer = self._context.writer
        reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": claim.metadata.uid}
        reference |= {"namespace": claim.namespace, "name": claim.name}
        await writer.patch(PERSISTENT_VOLUME, volume, {"spec": {"claimRef": reference}})
        await writer.patch(PERSISTENT_VOLUME, volume, {"status": {"phase": "Bound"}}, subresource="status")
        patch: JSON = {"spec": {"volumeName": volume.name}}
        patch["metadata"] = {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}
        await writer.patch(PERSISTENT_VOLUME_CLAIM, claim, patch)
        status = {"phase": "Bound", "accessModes": volume.spec.access_modes, "capacity": volume.spec.capacity}
        await writer.patch(PERSISTENT_VOLUME_CLAIM, claim, {"status": status}, subresource="status")

    def _tell(self, claim: PersistentVolumeClaim, type_: str, reason: str, text: str) -> None:
        self._context.recorder.record(COMPONENT, PERSISTENT_VOLUME_CLAIM, claim, type_, reason, text)


def _make(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)  # whoever the pod's processes are
