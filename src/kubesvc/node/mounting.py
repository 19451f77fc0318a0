"""How a volume is mounted in a container: read-only to which depth, and which later mounts are seen where. Pure.

Follows the kubelet (resolveRecursiveReadOnly) and, for what a mount's source must be like, containerd.
"""

from __future__ import annotations

from kubesvc.api.meta import JSON
from kubesvc.api.pods import Container, Pod, VolumeMount
from kubesvc.node.environment import ConfigError

_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}
_EXPECTED = {"rslave": "a shared or slave mount", "rshared": "a shared mount"}


def propagation(mount: VolumeMount) -> str:
    """As an option of a mount."""
    return _PROPAGATION.get(mount.mount_propagation or "", "rprivate")


def unfit(path: str, wanted: str, point: str, *, shared: bool, slave: bool) -> str:
    """Why `path`, on the mount at `point`, can't be mounted so; "" when it can."""
    if wanted == "rprivate" or shared or (slave and wanted == "rslave"):
        return ""
    return f'path "{path}" is mounted on "{point}" but it is not {_EXPECTED[wanted]}'


def is_asked_for(pod: Pod) -> bool:
    """Whether what the machine can do with read-only mounts matters."""
    return any(
        mount.recursive_read_only in ("Enabled", "IfPossible")
        for container in pod.spec.every_container
        for mount in container.volume_mounts
    )


def all_read_only(mount: VolumeMount, *, possible: bool) -> bool:
    """Whether what is mounted below the volume is read-only too; `possible`: the machine can. Raises ConfigError."""
    wanted = mount.recursive_read_only or "Disabled"
    if wanted == "Disabled":
        return False
    told = f'volume "{mount.name}" requested recursive read-only mode, but it is not'
    if not mount.read_only:
        raise ConfigError(f"{told} read-only")
    if mount.mount_propagation not in (None, "None"):
        raise ConfigError(f'{told} compatible with propagation "{mount.mount_propagation}"')
    if wanted == "Enabled" and not possible:
        raise ConfigError(f"{told} supported by the runtime")
    return possible


def status(container: Container, *, possible: bool) -> list[JSON]:
    """A container status' volumeMounts."""
    found = []
    for mount in container.volume_mounts:
        shown: JSON = {"name": mount.name, "mountPath": mount.mount_path}
        if mount.read_only:
            try:
                deep = all_read_only(mount, possible=possible)
            except ConfigError:
                deep = False
            shown |= {"readOnly": True, "recursiveReadOnly": "Enabled" if deep else "Disabled"}
        found.append(shown)
    return found
