"""Who a container's processes are and what they may: the pod's securityContext and the container's. Pure.

Follows the kubelet: what a container says of itself goes before what its pod says.
"""

from __future__ import annotations

from collections.abc import Collection

from kubesvc.api.meta import JSON
from kubesvc.api.pods import Container, Pod, SeccompProfile, SecurityContext
from kubesvc.node.environment import ConfigError
from kubesvc.node.images.accounts import Account
from kubesvc.node.images.image import Image

CAPABILITIES = (
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
_NOTHING = SecurityContext()


def _said(pod: Pod, container: Container) -> tuple[SecurityContext, SecurityContext]:
    """The pod's word and the container's own."""
    return pod.spec.security_context or _NOTHING, container.security_context or _NOTHING


def capabilities(container: Container, available: Collection[str]) -> list[str]:
    own = container.security_context or _NOTHING
    if own.privileged:
        return sorted(available)
    wanted = set(CAPABILITIES)
    if changes := own.capabilities:
        drop = {c.upper().removeprefix("CAP_") for c in changes.drop}
        add = {c.upper().removeprefix("CAP_") for c in changes.add}
        wanted = set() if "ALL" in drop else wanted - {f"CAP_{c}" for c in drop}
        wanted |= set(available) if "ALL" in add else {f"CAP_{c}" for c in add}
    return sorted(wanted & set(available))


def seccomp(pod: Pod, container: Container) -> SeccompProfile | None:
    """The profile of system calls that it is confined by: its own, else the pod's. None: it isn't, as nobody who is
    privileged is."""
    of_pod, own = _said(pod, container)
    found = own.seccomp_profile or of_pod.seccomp_profile
    return None if own.privileged or found is None or found.type == "Unconfined" else found


def user(pod: Pod, container: Container, account: Account) -> JSON:
    """The user and groups of the container's processes: its own word, else the pod's, else the image's `account`."""
    of_pod, own = _said(pod, container)
    uid = of_pod.run_as_user if own.run_as_user is None else own.run_as_user
    gid = of_pod.run_as_group if own.run_as_group is None else own.run_as_group
    groups = list(of_pod.supplemental_groups)
    if of_pod.fs_group is not None:
        groups.append(of_pod.fs_group)
    if uid is None:
        uid, gid = account.uid, account.gid if gid is None else gid
        groups += account.groups
    return {"uid": uid, "gid": gid or 0, "additionalGids": list(dict.fromkeys(groups))}


def keep_from_root(pod: Pod, container: Container, image: Image) -> None:
    """See that what must not run as root doesn't. Raises ConfigError, in upstream's words."""
    of_pod, own = _said(pod, container)
    if not (of_pod.run_as_non_root if own.run_as_non_root is None else own.run_as_non_root):
        return
    where = f'(pod: "{pod.name}_{pod.namespace}({pod.metadata.uid})", container: {container.name})'
    uid = of_pod.run_as_user if own.run_as_user is None else own.run_as_user
    if uid == 0:
        raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
    name = image.user.partition(":")[0]
    if uid is not None or (name.isdigit() and int(name)):
        return
    if name and not name.isdigit():
        unknown = f"image has non-numeric user ({name}), cannot verify user is non-root"
        raise ConfigError(f"container has runAsNonRoot and {unknown} {where}")
    raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
