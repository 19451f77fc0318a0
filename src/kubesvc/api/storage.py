"""PersistentVolumes and their claims, as the rooms read them."""

from __future__ import annotations

from kubesvc.api.meta import Object, Struct
from kubesvc.api.pods import HostPathVolume

DEFAULT_CLASS = "standard"
PROVISIONER = "kubesvc/directory"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


class Resources(Struct, frozen=True):
    requests: dict[str, int | str] = {}


class ClaimReference(Struct, frozen=True):
    namespace: str = ""
    name: str = ""
    uid: str = ""


class ClaimSpec(Struct, frozen=True):
    access_modes: list[str] = []
    resources: Resources = Resources()
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
        """ "" asks for a volume that somebody made; nothing said is the default class."""
        return DEFAULT_CLASS if self.spec.storage_class_name is None else self.spec.storage_class_name


class LocalVolume(Struct, frozen=True):
    path: str


class VolumeSpec(Struct, frozen=True):
    access_modes: list[str] = []
    capacity: dict[str, int | str] = {}
    claim_ref: ClaimReference | None = None
    host_path: HostPathVolume | None = None
    local: LocalVolume | None = None
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


class StorageClass(Object, frozen=True):
    provisioner: str = ""
    reclaim_policy: str = "Delete"


_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "Ki": 2.0**10, "Mi": 2.0**20,
          "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}  # fmt: skip


def size(quantity: int | str | None) -> float:
    """Bytes of a quantity such as 5Gi. Raises ValueError."""
    text = str(quantity or 0)
    number = text.rstrip("mkKMGTPi")
    return float(number) * _UNITS[text[len(number) :]]
