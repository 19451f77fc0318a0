"""A pod's claims, as the volumes they are bound to: a directory of the machine each. Pure."""

from __future__ import annotations

import msgspec

from kubesvc.api.pods import HostPathVolume, Pod, Volume
from kubesvc.api.storage import PersistentVolume, PersistentVolumeClaim
from kubesvc.node.environment import ConfigError, Sources


def names(pod: Pod) -> set[str]:
    return {v.persistent_volume_claim.claim_name for v in pod.spec.volumes if v.persistent_volume_claim}


def path(claim: PersistentVolumeClaim, volume: PersistentVolume | None) -> str:
    """The directory of a bound claim; "" while it waits. Raises ConfigError."""
    if claim.status.phase != "Bound" or volume is None:
        return ""
    if not volume.spec.path:
        raise ConfigError(f'PersistentVolume "{volume.name}": only hostPath and local volumes are supported')
    return volume.spec.path


def resolve(pod: Pod, sources: Sources) -> Pod:
    """The pod with its claims' volumes in the claims' place. Raises ConfigError."""
    if not names(pod):
        return pod
    found = [_resolve(volume, sources) for volume in pod.spec.volumes]
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, volumes=found))


def _resolve(volume: Volume, sources: Sources) -> Volume:
    claimed = volume.persistent_volume_claim
    if claimed is None:
        return volume
    directory = sources.claims.get(claimed.claim_name)
    if directory is None:
        raise ConfigError(f'persistentvolumeclaim "{claimed.claim_name}" not found')
    if not directory:
        raise ConfigError(f'persistentvolumeclaim "{claimed.claim_name}" is not bound to a volume yet')
    return msgspec.structs.replace(volume, host_path=HostPathVolume(directory, "DirectoryOrCreate"))
