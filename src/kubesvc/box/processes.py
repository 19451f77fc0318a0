"""The record of a box's processes: what `status` shows, and how `down` finds what a crash left.

A process is named by pid *and* start time, so that a recycled pid is never mistaken for ours.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import msgspec


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a box. state: running, backing off, stopped. Times are seconds since the epoch."""

    name: str  # control-plane, node1/proxy
    pid: int
    started: int  # clock ticks since boot, from /proc
    state: str = "running"
    restarts: int = 0
    since: float = 0.0
    last_exit: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """status.json: the supervisor and its children."""

    supervisor: Process
    processes: list[Process] = []
    ready: bool = False


def start_ticks(pid: int) -> int:
    """When `pid` started, in clock ticks since boot; 0 when it doesn't live (a zombie doesn't)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def alive(process: Process) -> bool:
    return process.pid > 0 and start_ticks(process.pid) == process.started


def save(run_path: Path, status: Status) -> None:
    part = run_path / "status.json.new"
    part.write_bytes(msgspec.json.encode(status))
    part.replace(run_path / "status.json")


def load(run_path: Path) -> Status | None:
    """The last status written, or None. A torn or foreign file counts as none."""
    try:
        return msgspec.json.decode((run_path / "status.json").read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError):
        return None


def stop(process: Process, number: signal.Signals, patience: float) -> bool:
    """Send `number` to the process if it still is the one recorded; whether it was gone within `patience` seconds."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return True
    try:
        if not alive(process):
            return True
        signal.pidfd_send_signal(descriptor, number)
        return bool(select.select([descriptor], [], [], patience)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
