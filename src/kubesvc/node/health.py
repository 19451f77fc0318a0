"""How the machine under a node is: what its conditions say. Observing and deciding apart; `conditions` is pure.

Thresholds are the kubelet's: less than a tenth of the file system under the pods or under the images, or a twentieth of
their inodes, is disk pressure, less than 100 MiB of memory to be had is memory pressure, less than a tenth of the
process ids PID pressure.
A node that can't run containers at all isn't Ready, and says why.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from kubesvc.node.config import NodeConfig
from kubesvc.node.runtime import RuntimeFailure, find_program

LEAST_DISK, LEAST_INODES, LEAST_PIDS = 0.10, 0.05, 0.10
LEAST_MEMORY = 100 << 20  # bytes
PLENTY = 1 << 62  # bytes: where nobody can tell

Conditions = dict[str, tuple[str, str, str]]
"""type -> (status, reason, message), in upstream's words."""


class Observed(msgspec.Struct, frozen=True):
    """Shares are from 0 to 1; `problems` keep containers from being run at all."""

    disk: float = 1.0
    inodes: float = 1.0
    memory: int = PLENTY  # bytes
    pids: float = 1.0
    problems: tuple[str, ...] = ()


def observe(config: NodeConfig) -> Observed:
    """What is true now. Never raises: what can't be looked at is a problem."""
    problems = []
    disk = inodes = 1.0
    try:
        found = os.statvfs(config.run_dir)
        disk, inodes = _free(found)
        if found.f_flag & os.ST_RDONLY:
            problems.append(f"{config.run_dir} is on a read-only file system")
        elif not os.access(config.run_dir, os.W_OK | os.X_OK):
            problems.append(f"{config.run_dir} can't be written to")
    except OSError as error:
        problems.append(f"{config.run_dir}: {error.strerror}")
    if config.images is not None:
        with suppress(OSError):  # there before the first image is, or the machine's own trouble: pulls say so
            disk, inodes = map(min, (disk, inodes), _free(os.statvfs(config.images)))
    for name in (config.runtime, config.monitor):
        try:
            find_program(name)
        except RuntimeFailure as error:
            problems.append(str(error))
    return Observed(disk, inodes, _memory(), _pids(), tuple(problems))


def _free(found: os.statvfs_result) -> tuple[float, float]:
    """The shares of a file system's blocks and inodes that are free."""
    disk = found.f_bavail / found.f_blocks if found.f_blocks else 1.0
    return disk, found.f_favail / found.f_files if found.f_files else 1.0


def _memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return PLENTY
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), PLENTY)


def _pids() -> float:
    """The share of process ids that are free."""
    try:
        most = int(Path("/proc/sys/kernel/pid_max").read_text())
        used = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return 1.0
    return 1 - used / most


def _pressure(there: bool, bad: tuple[str, str], good: tuple[str, str]) -> tuple[str, str, str]:
    return ("True", *bad) if there else ("False", *good)


def conditions(seen: Observed) -> Conditions:
    full = seen.disk < LEAST_DISK or seen.inodes < LEAST_INODES
    ready = ("True", "KubeletReady", "kubelet is posting ready status")
    if seen.problems:
        ready = ("False", "KubeletNotReady", "; ".join(seen.problems))
    return {
        "MemoryPressure": _pressure(
            seen.memory < LEAST_MEMORY,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        "DiskPressure": _pressure(
            full,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        "PIDPressure": _pressure(
            seen.pids < LEAST_PIDS,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        "NetworkUnavailable": ("False", "RouteCreated", "kubesvc routes every node's pods"),
        "Ready": ready,
    }
