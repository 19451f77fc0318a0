"""Ending everything of a node from what is on disk: no API, no agent, no event loop needed.

For `kubesvc down`, and after a crash of everything: containers and their monitors are killed (each only if its start
time says that it is still the one recorded), namespaces and volumes unmounted, cgroups and files removed.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from kubesvc.kernel import mounts, netns
from kubesvc.node import cgroups, records
from kubesvc.node.config import NodeConfig
from kubesvc.node.records import ContainerRecord

PATIENCE_MS = 5000  # for a killed process to be gone


def teardown(config: NodeConfig) -> None:
    """Leave nothing of this node's containers. Doing it again, or where nothing is, is fine."""
    paths = config.paths
    processes = [process for record in _containers(paths.pods) for process in _processes(paths.runtime, *record)]
    for process in processes:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    for process in processes:
        _wait(process)
    if paths.pods.is_dir():
        for pod in paths.pods.iterdir():
            netns.delete(pod / "netns")
    mounts.unmount_all(paths.run_dir)
    cgroups.remove(config.cgroup)
    shutil.rmtree(paths.run_dir, ignore_errors=True)


def _containers(pods: Path) -> list[tuple[Path, ContainerRecord]]:
    """Every attempt on disk: its bundle and its record."""
    found = []
    for path in sorted(pods.glob("*/containers/*/*/container.json")):
        record = records.load(path, ContainerRecord)
        if record is not None:
            found.append((path.parent, record))
    return found


def _processes(runtime: Path, bundle: Path, record: ContainerRecord) -> list[int]:
    """pidfds of what is left of one attempt: conmon first, so that it starts nothing more, then the container."""
    found = []
    monitor = _number(bundle / "conmon.pid")
    if monitor and record.id.encode() in _command_line(monitor):
        with suppress(ProcessLookupError):
            found.append(os.pidfd_open(monitor))
    pid, start = record.pid, record.pid_start
    if not pid and (pid := _number(bundle / "pidfile")) and (runtime / record.id).exists():
        start = records.process_start(pid)  # killed between the runtime's start and our record of it
    with suppress(ProcessLookupError):
        found.append(records.open_process(pid, start))
    return found


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _wait(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll(PATIENCE_MS)
    os.close(process)
