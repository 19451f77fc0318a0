"""An attempt's bundle on disk: the root, config.json; and which old ones go."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.api.pods import Container, Pod
from kubesvc.kernel import mounts
from kubesvc.node import hostimage, records, spec, termination
from kubesvc.node.config import PodPaths
from kubesvc.node.images import root as roots
from kubesvc.node.images.accounts import Account
from kubesvc.node.images.image import Image, ImageError
from kubesvc.node.machine import Machine
from kubesvc.node.runtime import RuntimeFailure
from kubesvc.node.spec import Bind


class Surroundings(msgspec.Struct, frozen=True):
    """What the pod gives its containers."""

    address: str  # where probes ask
    network: Path | None  # None: the node's own namespace
    hostname: str
    environment: Mapping[str, str]
    binds: Sequence[Bind]
    processes: Path | None = None  # another container's PID namespace, to see its processes
    seccomp: JSON | None = None  # which system calls it may make, as the OCI runtime spec has it; None: every one


def make(
    machine: Machine, pod: Pod, container: Container, bundle: Path, around: Surroundings, id_: str, image: Image
) -> None:
    """Fill the directory `bundle`, anew. Raises ConfigError, RuntimeFailure, OSError."""
    remove(bundle)
    root = bundle / "rootfs"
    root.mkdir(parents=True)
    last_words = Bind(str(termination.make(bundle)), container.termination_message_path)
    binds = [*around.binds, last_words]
    account = Account()
    if image.is_host and any(bind.propagation == "rshared" for bind in around.binds):
        # runc makes the mount that the root is on private. Volumes are on the same one, and couldn't be shared then.
        mounts.mount_itself(root)
    if image.is_host:
        binds = [*hostimage.make_root(root), *binds]
        if container.working_dir:
            # As runtimes do: a working directory that isn't there is made (but not inside what is read-only).
            with suppress(OSError, ValueError):
                (root / container.working_dir.lstrip("/")).mkdir(parents=True, exist_ok=True)
    else:
        try:
            roots.mount(machine.images.store, image, bundle)
            account = roots.account(image, root)
        except (ImageError, ValueError) as error:
            raise RuntimeFailure(str(error)) from error
    config = spec.build(
        pod,
        container,
        environment=around.environment,
        binds=binds,
        hostname=around.hostname,
        network=None if around.network is None else str(around.network),
        processes=None if around.processes is None else str(around.processes),
        cgroup=f"{machine.config.cgroup}/{id_}" if machine.runtime.has_cgroups else None,
        available=machine.runtime.capabilities,
        image=image,
        account=account,
        seccomp=around.seccomp,
    )
    made = bundle / "config.json"
    made.touch(mode=0o600)  # Secrets are in the environment
    made.write_bytes(msgspec.json.encode(config))


def remove(bundle: Path) -> None:
    """Take a bundle away, with its root."""
    mounts.unmount_all(bundle)
    shutil.rmtree(bundle, ignore_errors=True)


def empty(bundle: Path) -> None:
    """Take away what a container that has ended wrote; what is known of it stays."""
    mounts.unmount_all(bundle)
    for name in ("rootfs", "upper", "work"):
        shutil.rmtree(bundle / name, ignore_errors=True)


def written(bundle: Path) -> Path:
    """Where what a container writes is: above its image's layers, or in a root of its own."""
    upper = bundle / "upper"
    return upper if upper.is_dir() else bundle / "rootfs"


def forget_old(paths: PodPaths, container: str, attempt: int) -> None:
    """Keep the log of one attempt before this one, and no bundle of any."""
    for old in records.attempts(paths, container):
        if old < attempt:
            remove(paths.bundle(container, old))
    for path in paths.log(container, 0).parent.glob("*.log*"):
        if (number := path.name.partition(".")[0]).isdigit() and int(number) < attempt - 1:
            path.unlink(missing_ok=True)
