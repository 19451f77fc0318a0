"""PersistentVolumes and their claims, as the rooms read them."""

from __future__ import annotations

from collections.abc import Iterable

from kubesvc.api.meta import LabelSelector, Object, Struct
from kubesvc.api.pods import HostPathVolume, NodeSelector, Pod, Volume

IS_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
"""Annotations of the class that claims get which name none."""

PROVISIONER = "kubesvc/directory"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
"""Of a class whose volumes somebody makes."""

PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""A claim's annotation: where the pod goes for which a volume is to be made."""

CLAIM_PROTECTION = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION = "kubernetes.io/pv-protection"
"""Finalizers that every claim and volume has from the beginning: it stays while it is used."""


class Resources(Struct, frozen=True):
    requests: dict[str, int | str] = {}


class ClaimReference(Struct, frozen=True):
    namespace: str = ""
    name: str = ""
    uid: str = ""


class ClaimSpec(Struct, frozen=True):
    access_modes: list[str] = []
    resources: Resources = Resources()
    selector: LabelSelector | None = None
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str | None = None


class ClaimStatus(Struct, frozen=True):
    phase: str = ""


class PersistentVolumeClaim(Object, frozen=True):
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()

    @property
    def storage_class(self) -> str:
        """ "" asks for a volume that somebody made; nothing said is that too, while there is no default class."""
        return self.spec.storage_class_name or ""

    @property
    def is_bound(self) -> bool:
        return self.status.phase == "Bound" and bool(self.spec.volume_name)


def claim_name(pod: Pod, volume: Volume) -> str:
    """The claim that a pod's volume is of; "" when it is of none."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.name}-{volume.name}" if volume.ephemeral is not None else ""


def claim_names(pod: Pod) -> list[str]:
    return [name for volume in pod.spec.volumes if (name := claim_name(pod, volume))]


def is_for(claim: Object, pod: Pod) -> bool:
    """Whether the claim was made for an ephemeral volume of this very pod, whose name it has."""
    return any(r.controller and r.uid == pod.metadata.uid for r in claim.metadata.owner_references)


def not_for(claim: Object, pod: Pod) -> str:
    """What is said where it should have been, in upstream's words."""
    whose = f"pod {pod.namespace}/{pod.name}"
    return f"PVC {claim.namespace}/{claim.name} was not created for {whose} (pod is not owner)"


class LocalVolume(Struct, frozen=True):
    path: str


class VolumeNodeAffinity(Struct, frozen=True):
    required: NodeSelector | None = None


class VolumeSpec(Struct, frozen=True):
    access_modes: list[str] = []
    capacity: dict[str, int | str] = {}
    claim_ref: ClaimReference | None = None
    host_path: HostPathVolume | None = None
    local: LocalVolume | None = None
    node_affinity: VolumeNodeAffinity | None = None
    volume_mode: str | None = None
    persistent_volume_reclaim_policy: str = "Retain"
    storage_class_name: str = ""

    @property
    def path(self) -> str:
        """The directory it is; "" for storage of another sort."""
        return self.host_path.path if self.host_path else self.local.path if self.local else ""


class VolumeStatus(Struct, frozen=True):
    phase: str = ""


class PersistentVolume(Object, frozen=True):
    spec: VolumeSpec = VolumeSpec()
    status: VolumeStatus = VolumeStatus()


class TopologyRequirement(Struct, frozen=True):
    key: str = ""
    values: list[str] = []


class TopologySelectorTerm(Struct, frozen=True):
    match_label_expressions: list[TopologyRequirement] = []


class StorageClass(Object, frozen=True):
    provisioner: str = ""
    reclaim_policy: str = "Delete"
    volume_binding_mode: str = "Immediate"
    allowed_topologies: list[TopologySelectorTerm] = []


def default_class(classes: Iterable[StorageClass]) -> StorageClass | None:
    """The newest of those that say so; of two as new the first by name."""
    found = sorted((c for c in classes if _is_default(c)), key=lambda c: c.name)
    return max(found, key=lambda c: c.metadata.creation_timestamp or "", default=None)


def _is_default(found: StorageClass) -> bool:
    return any(found.metadata.annotations.get(key) == "true" for key in IS_DEFAULT)


_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "Ki": 2.0**10, "Mi": 2.0**20,
          "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}  # fmt: skip


def size(quantity: int | str | None) -> float:
    """Bytes of a quantity such as 5Gi. Raises ValueError."""
    text = str(quantity or 0)
    number = text.rstrip("mkKMGTPi")
    return float(number) * _UNITS[text[len(number) :]]
