"""Which volume a claim gets, which are to be made for one, and which are done with. Pure.

claim ─► a volume that names it ─► the smallest free one that fits ─► one made for it, a directory ─► Bound
      none of these ─► it waits, and is told for what
late claim ─► a volume that names it, as the scheduler lets one do, or one made when it has selected a node ─► Bound
claim deleted ─► its volume Released ─► reclaimPolicy Delete: gone, with its directory

What is made has no node affinity: the nodes share the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from kubesvc.api.meta import JSON
from kubesvc.api.storage import (
    IS_DEFAULT,
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    default_class,
)
from kubesvc.controllers.persistentvolume.matching import choose, is_free, is_late

Consumers = Callable[[PersistentVolumeClaim], Sequence[str]]
"""The pods that use a claim and have no node yet."""


class Plan(msgspec.Struct):
    name_class: list[tuple[PersistentVolumeClaim, str]] = []
    """Claims that were made while there was no default class; now there is."""
    bind: list[tuple[PersistentVolumeClaim, PersistentVolume]] = []
    make: list[tuple[PersistentVolumeClaim, JSON]] = []
    phases: list[tuple[PersistentVolume, str]] = []
    remove: list[PersistentVolume] = []
    waiting: list[tuple[PersistentVolumeClaim, str, str]] = []
    """Claims that get nothing now, an Event's reason, and why."""


def plan(
    claims: Iterable[PersistentVolumeClaim],
    volumes: Iterable[PersistentVolume],
    classes: Mapping[str, StorageClass],
    directory: str,
    consumers: Consumers = lambda claim: (),
) -> Plan:
    """`directory`: where volumes are made; "" makes none."""
    found = Plan()
    by_uid = {claim.metadata.uid: claim for claim in claims}
    free: dict[str, PersistentVolume] = {}
    for volume in volumes:
        reference = volume.spec.claim_ref
        if reference is None or not reference.uid:
            if is_free(volume):
                free[volume.name] = volume
            if volume.status.phase in ("", "Pending"):
                found.phases.append((volume, "Available"))
        elif reference.uid not in by_uid:
            ours = volume.metadata.annotations.get(PROVISIONED_BY) == PROVISIONER
            if ours and volume.spec.persistent_volume_reclaim_policy == "Delete":
                if volume.status.phase != "Released" or volume.metadata.deletion_timestamp is None:
                    found.remove.append(volume)
            elif volume.status.phase != "Released":
                found.phases.append((volume, "Released"))
        elif volume.status.phase != "Bound" or by_uid[reference.uid].status.phase != "Bound":
            found.bind.append((by_uid[reference.uid], volume))
    bound = {claim.metadata.uid for claim, _ in found.bind}
    waiting = [c for c in by_uid.values() if c.status.phase != "Bound" and c.metadata.uid not in bound]
    if (default := default_class(classes.values())) is not None:
        found.name_class = [(c, default.name) for c in waiting if c.spec.storage_class_name is None]
        waiting = [_of_class(c, default.name) for c in waiting]
    for claim in sorted(waiting, key=lambda c: (c.metadata.creation_timestamp or "", c.key)):
        late = is_late(claim, classes)
        chosen = choose(claim, (v for v in free.values() if not late or v.spec.claim_ref is not None))
        if chosen is not None:
            del free[chosen.name]
            found.bind.append((claim, chosen))
        elif not claim.metadata.deletion_timestamp:
            wanted = classes.get(claim.storage_class)
            ours = wanted is not None and wanted.provisioner == PROVISIONER
            if late and SELECTED_NODE not in claim.metadata.annotations:
                found.waiting.append((claim, *_for_its_consumer(consumers(claim))))
            elif wanted is not None and ours and directory and not claim.spec.volume_name:
                found.make.append((claim, made_for(claim, wanted, directory)))
            else:
                found.waiting.append((claim, *_why_it_waits(claim, classes)))
    return found


def _of_class(claim: PersistentVolumeClaim, name: str) -> PersistentVolumeClaim:
    """The claim as it is with a class, if it names none."""
    if claim.spec.storage_class_name is not None:
        return claim
    return replace(claim, spec=replace(claim.spec, storage_class_name=name))


def _for_its_consumer(pods: Sequence[str]) -> tuple[str, str]:
    """An Event's reason and upstream's words."""
    if not pods:
        return "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
    who = f"pod {pods[0]}" if len(pods) == 1 else f"pods {','.join(pods)}"
    return "WaitForPodScheduled", f"waiting for {who} to be scheduled"


def _why_it_waits(claim: PersistentVolumeClaim, classes: Mapping[str, StorageClass]) -> tuple[str, str]:
    """An Event's reason, and upstream's words with what to do."""
    name = claim.storage_class
    if claim.spec.volume_name:
        return "FailedBinding", f"volume \"{claim.spec.volume_name}\" isn't there, or is another claim's"
    if not name:
        why = "no persistent volumes available for this claim and no storage class is set"
        return "FailedBinding", f"{why}: leave storageClassName out to have one made"
    wanted = classes.get(name)
    if wanted is None:
        here = ", ".join(sorted(classes)) or "none"
        return "ProvisioningFailed", f'storageclass.storage.k8s.io "{name}" not found; there are: {here}'
    return "ExternalProvisioning", f"waiting for a volume that the provisioner '{wanted.provisioner}' or somebody makes"


def made_for(claim: PersistentVolumeClaim, wanted: StorageClass, directory: str) -> JSON:
    """The volume of a claim, as upstream's provisioners name it: pvc-UID."""
    name = f"pvc-{claim.metadata.uid}"
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": claim.metadata.uid}
    return {
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": claim.spec.access_modes,
            "capacity": {"storage": claim.spec.resources.requests.get("storage", "1Gi")},
            "claimRef": reference | {"namespace": claim.namespace, "name": claim.name},
            "hostPath": {"path": f"{directory}/{name}", "type": "DirectoryOrCreate"},
            "persistentVolumeReclaimPolicy": wanted.reclaim_policy,
            "storageClassName": claim.storage_class,
        },
    }


def storage_class() -> JSON:
    """The class that a claim gets when it names none."""
    return {
        "metadata": {"name": "standard", "annotations": {IS_DEFAULT[0]: "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }
