"""What a node is told at start, and where it keeps what on disk.

RUN_DIR/
  pods/UID/pod.json               the record an agent started later reads (records.py)
  pods/UID/netns                  the pod's network namespace, pinned
  pods/UID/etc/                   hosts, hostname, resolv.conf, shared by the pod's containers
  pods/UID/volumes/NAME/          emptyDir, configMap, secret
  pods/UID/images/NAME/           an image volume: rootfs/, mounted
  pods/UID/logs/NAME/ATTEMPT.log  CRI format
  pods/UID/containers/NAME/ATTEMPT/   an OCI bundle: config.json, rootfs/, pidfile, container.json
  exits/ID                        written by conmon: the exit code
  runtime/  sockets/              the OCI runtime's state; conmon's attach sockets
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec

Address = IPv4Address | IPv6Address


class CniConfig(msgspec.Struct, frozen=True):
    """A network made by standard CNI plugins."""

    configuration: Path  # a file, or a directory such as /etc/cni/net.d, of which the first file counts
    plugins: tuple[Path, ...]  # directories such as /opt/cni/bin
    cache: Path
    """Where it is kept what plugins did: it must outlive a reboot, as what they keep themselves does."""


class NodeConfig(msgspec.Struct, frozen=True):
    """One node. The process is inside the node's network namespace; `run_dir` belongs to this node alone."""

    box: str
    node_name: str
    node_ips: tuple[Address, ...]  # one of each family, the primary first
    run_dir: Path
    certificate: Path  # PEM: of the node's HTTPS server
    key: Path
    client_ca: Path  # who may read logs and exec: certificates this authority signed
    cluster_dns: tuple[Address, ...] = ()
    dns_domain: str = "cluster.local"
    identity: Path | None = None  # PEM, certificate and key: what the node renews itself with; None: somebody else does
    port: int = 10250
    zone: str = ""
    labels: Mapping[str, str] = {}
    lease_renewal: float = 10.0  # seconds between two renewals of the node's Lease
    health_interval: float = 10.0  # seconds between two looks at the machine's disk, memory and programs
    log_max_size: int = 10 << 20  # bytes, as the kubelet's containerLogMaxSize; a larger log is put aside
    log_max_files: int = 5  # how many are kept of a container, the current one too: containerLogMaxFiles
    log_interval: float = 10.0  # seconds between two looks at them
    storage_interval: float = 10.0  # seconds between two looks at what pods with limits of it keep on disk
    runtime: str = "runc"
    monitor: str = "conmon"
    withdrawal_wait: float = 2.0
    """Seconds a pod's SIGTERM waits, at most, until no node picks the pod any more; 0: it doesn't wait."""
    hosts: Path = Path("/etc/hosts")  # the machine's: for pods on the node's own network
    images: Path | None = None  # the store, shared by the nodes of a machine; None: one in run_dir
    image_network: int | None = None
    """An open descriptor of the network namespace in which images are pulled; None: the node's own."""
    docker_config: Path | None = None  # config.json: who one is at registries
    resolv_conf: Path = Path("/etc/resolv.conf")  # the machine's: for dnsPolicy Default, and more search domains

    cni: CniConfig | None = None  # None: pods' networks are podnet.py's
    seccomp: Path = Path("/var/lib/kubelet/seccomp")  # where profiles are that pods name: type Localhost
    mtu: int = 0  # bytes, of pods' links; 0: the kernel's choice

    @property
    def node_ip(self) -> Address:
        """The primary one."""
        return self.node_ips[0]

    @property
    def paths(self) -> Paths:
        return Paths(self.run_dir)

    @property
    def cgroup(self) -> str:
        """The parent of every container's cgroup on this node."""
        return f"/kubesvc/{self.box}/{self.node_name}"


class Paths(msgspec.Struct, frozen=True):
    run_dir: Path

    @property
    def pods(self) -> Path:
        return self.run_dir / "pods"

    @property
    def exits(self) -> Path:
        return self.run_dir / "exits"

    @property
    def runtime(self) -> Path:
        return self.run_dir / "runtime"

    @property
    def sockets(self) -> Path:
        return self.run_dir / "sockets"

    def pod(self, uid: str) -> PodPaths:
        return PodPaths(self.pods / uid)

    def make(self) -> None:
        for path in (self.pods, self.exits, self.runtime, self.sockets):
            path.mkdir(parents=True, exist_ok=True)
        self.run_dir.chmod(0o700)


class PodPaths(msgspec.Struct, frozen=True):
    root: Path

    @property
    def record(self) -> Path:
        return self.root / "pod.json"

    @property
    def netns(self) -> Path:
        return self.root / "netns"

    @property
    def pidns(self) -> Path:
        return self.root / "pidns"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    def volume(self, name: str) -> Path:
        return self.volumes / name

    @property
    def images(self) -> Path:
        return self.root / "images"

    def image(self, volume: str) -> Path:
        return self.images / volume / "rootfs"

    def logs(self, container: str) -> Path:
        return self.root / "logs" / container

    def log(self, container: str, attempt: int) -> Path:
        return self.logs(container) / f"{attempt}.log"

    def bundle(self, container: str, attempt: int) -> Path:
        return self.containers / container / str(attempt)
