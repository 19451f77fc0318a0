"""A container's OCI runtime configuration (config.json). Pure. Follows the OCI runtime spec 1.0.2.

A container has its own PID (unless the pod shares one), mount, IPC and UTS namespace, less what hostPID and hostIPC
leave out; the network namespace is the pod's, or the node's for hostNetwork. Capabilities are the set
Docker gives, less what the machine itself hasn't; a privileged container has all of those, and no path hidden from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.api.pods import Container, Pod, SecurityContext
from kubesvc.node import resources, security
from kubesvc.node.environment import ConfigError, expand
from kubesvc.node.images import image as images
from kubesvc.node.images.accounts import Account
from kubesvc.node.images.image import Image

MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
          "/proc/sched_debug", "/proc/scsi", "/sys/firmware")  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Bind(msgspec.Struct, frozen=True):
    """A host path shown in the container."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = False  # with what is mounted below it
    all_read_only: bool = False  # what is mounted below it too
    propagation: str = "rprivate"  # rslave: later mounts there are seen here; rshared: and the other way round

    def mount(self) -> JSON:
        options = ["rbind" if self.recursive else "bind", self.propagation]
        if self.read_only:
            options += ["ro", *(["rro"] if self.all_read_only else [])]
        return {"destination": self.target, "type": "bind", "source": self.source, "options": options}


def _file_systems(privileged: bool) -> list[JSON]:
    quiet = ["nosuid", "noexec", "nodev"]
    kernel = quiet if privileged else [*quiet, "ro"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*quiet, "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": kernel},
    ]


def command(container: Container, environment: Mapping[str, str], image: Image) -> list[str]:
    """command and args with `$(VAR)` expanded, or the image's in their place. No command line is a ConfigError."""
    own = tuple(expand(word, environment) for word in container.command)
    arguments = tuple(expand(word, environment) for word in container.args)
    words = images.command(image, own, arguments)
    if not words:
        raise ConfigError(
            f'container "{container.name}": image {container.image} has no command of its own: set `command`'
        )
    return list(words)


def order(binds: Sequence[Bind]) -> list[Bind]:
    """Parents before children, so that a mount inside another's target isn't hidden; a later one of a target wins."""
    last = {bind.target: bind for bind in binds}
    return sorted(last.values(), key=lambda bind: bind.target.rstrip("/").count("/"))


def build(
    pod: Pod,
    container: Container,
    *,
    environment: Mapping[str, str],
    binds: Sequence[Bind],
    hostname: str,
    network: str | None,
    processes: str | None = None,
    cgroup: str | None,
    available: Collection[str],
    image: Image,
    account: Account,
    seccomp: JSON | None = None,
) -> JSON:
    """config.json. `network`: the path of the pod's namespace, None for the node's own; `processes`: that
    of a PID namespace to share; `cgroup` None: none is made;
    `available`: the capabilities the machine has; `seccomp`: which system calls it may make. Raises ConfigError."""
    granted = security.capabilities(container, available)
    of_pod, own = pod.spec.security_context or SecurityContext(), container.security_context or SecurityContext()
    process = {
        "terminal": container.tty,
        "user": security.user(pod, container, account),
        "args": command(container, environment, image),
        "env": [f"{name}={value}" for name, value in environment.items()],
        "cwd": container.working_dir or image.working_dir or "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), granted),
        "noNewPrivileges": own.allow_privilege_escalation is False,
    }
    shared = {"pid": pod.spec.host_pid, "ipc": pod.spec.host_ipc}
    namespaces: list[JSON] = [{"type": name} for name in ("pid", "ipc", "mount", "uts") if not shared.get(name)]
    if pod.spec.host_ipc:
        binds = [Bind("/dev/shm", "/dev/shm"), *binds]
    config: JSON = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {
            "path": "rootfs",
            "readonly": own.read_only_root_filesystem,
        },
        "mounts": [*_file_systems(own.privileged), *(bind.mount() for bind in order(binds))],
        "hostname": hostname,
        "annotations": {
            "io.kubernetes.pod.namespace": pod.namespace,
            "io.kubernetes.pod.name": pod.name,
            "io.kubernetes.container.name": container.name,
        },
    }
    if processes is not None and not pod.spec.host_pid:
        namespaces[0]["path"] = processes
    if network is not None:
        namespaces.append({"type": "network", "path": network})
    linux: JSON = {"namespaces": namespaces}
    if not own.privileged:
        linux |= {"maskedPaths": list(MASKED), "readonlyPaths": list(READ_ONLY)}
    # Without one that is shared too, what a container mounts can't be seen outside of it.
    for propagation in ("rshared", "rslave"):
        if any(bind.propagation == propagation for bind in binds):
            linux.setdefault("rootfsPropagation", propagation)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    if of_pod.sysctls:
        linux["sysctl"] = {setting.name: setting.value for setting in of_pod.sysctls}
    if cgroup is not None:
        linux["cgroupsPath"] = cgroup
        linux["resources"] = {
            "devices": [{"allow": own.privileged, "access": "rwm"}],
            **resources.build(container.resources),
        }
    config["linux"] = linux
    return config
