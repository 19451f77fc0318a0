"""Ending everything of a node from what is on disk and in the kernel: no API, no agent, no event loop needed.

For `kubesvc down`, and after a crash of everything. Monitors go first, so that they start nothing more; they are known
by their arguments. A container's processes are known by its record (only if the start time says that the process is
still that one) and by their cgroup. Then namespaces and volumes are unmounted, cgroups and files removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kubesvc.kernel import mounts, netns
from kubesvc.node import cgroups, processes, records
from kubesvc.node.cni.attachments import Attachments
from kubesvc.node.config import NodeConfig, Paths
from kubesvc.node.records import ContainerRecord


def teardown(config: NodeConfig, namespace: Path | None = None) -> None:
    """Leave nothing of this node's containers; `namespace` is the node's. Again is fine, and where nothing is."""
    paths = config.paths
    processes.kill(processes.with_argument(str(paths.exits), str(paths.runtime)))  # conmon, and a runtime at work
    processes.kill(_recorded(paths))
    processes.kill(_grouped(config.cgroup))
    if config.cni is not None and namespace is not None and netns.is_namespace(namespace):
        with netns.entered(namespace):
            Attachments(config.cni).forget()
    if paths.pods.is_dir():
        for pod in paths.pods.iterdir():
            netns.delete(pod / "netns")
    mounts.unmount_all(paths.run_dir)
    cgroups.remove(config.cgroup)
    shutil.rmtree(paths.run_dir, ignore_errors=True)


def _recorded(paths: Paths) -> Iterator[int]:
    """pidfds of the containers on record that run."""
    for path in paths.pods.glob("*/containers/*/*/container.json"):
        record = records.load(path, ContainerRecord)
        if record is None:
            continue
        pid, start = record.pid, record.pid_start
        if not pid and (paths.runtime / record.id).exists():
            # Killed between the runtime's work and our record of it: what the runtime wrote is all there is.
            with suppress(OSError, ValueError):
                pid = int((path.parent / "pidfile").read_text())
                start = processes.start_time(pid)
        with suppress(ProcessLookupError):
            yield processes.open_same(pid, start)


def _grouped(cgroup: str) -> Iterator[int]:
    """pidfds of whatever still is in a cgroup of ours, on record or not."""
    for pid in cgroups.processes(cgroup):
        with suppress(ProcessLookupError):
            yield os.pidfd_open(pid)
