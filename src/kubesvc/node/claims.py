"""A pod's claims, as the volumes they are bound to: a directory of the machine each. Pure."""

from __future__ import annotations

import msgspec

from kubesvc.api.pods import HostPathVolume, Pod, Volume
from kubesvc.api.storage import PersistentVolume, PersistentVolumeClaim, claim_name, claim_names, is_for, not_for
from kubesvc.node.environment import ConfigError, Sources


def names(pod: Pod) -> set[str]:
    return set(claim_names(pod))


def check_owner(pod: Pod, claim: PersistentVolumeClaim) -> None:
    """Refuse a claim that only has the name of one for the pod's ephemeral volume. Raises ConfigError."""
    ephemeral = any(v.ephemeral and claim_name(pod, v) == claim.name for v in pod.spec.volumes)
    if ephemeral and not is_for(claim, pod):
        raise ConfigError(not_for(claim, pod))


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
    found = [_resolve(pod, volume, sources) for volume in pod.spec.volumes]
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, volumes=found))


def _resolve(pod: Pod, volume: Volume, sources: Sources) -> Volume:
    name = claim_name(pod, volume)
    if not name:
        return volume
    directory = sources.claims.get(name)
    if directory is None:
        raise ConfigError(f'persistentvolumeclaim "{name}" not found')
    if not directory:
        raise ConfigError(f'persistentvolumeclaim "{name}" is not bound to a volume yet')
    return msgspec.structs.replace(volume, host_path=HostPathVolume(directory, "DirectoryOrCreate"))
