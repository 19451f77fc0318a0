"""Processes by more than a number: by their start time, which no later process of the same pid has, or an argument."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PATIENCE_MS = 5000  # for a killed process to be gone


def start_time(pid: int) -> int:
    """When process `pid` started, in clock ticks since boot; 0 when there is none (or it is a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def open_same(pid: int, start: int) -> int:
    """A pidfd of the process with this pid and start time. Raises ProcessLookupError when it is gone."""
    if pid <= 0 or not start:
        raise ProcessLookupError(f"no process {pid}")
    descriptor = os.pidfd_open(pid)
    if start_time(pid) != start:
        os.close(descriptor)
        raise ProcessLookupError(f"process {pid} is another one by now")
    return descriptor


def with_argument(*wanted: str) -> Iterator[int]:
    """pidfds of the processes that have one of `wanted` among their arguments."""
    words = {word.encode() for word in wanted}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if words.intersection((entry / "cmdline").read_bytes().split(b"\0")):
                    yield os.pidfd_open(int(entry.name))


def kill(pidfds: Iterable[int]) -> None:
    """Kill all at once, wait until they are gone, close the descriptors."""
    killed = list(pidfds)
    for process in killed:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    for process in killed:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(PATIENCE_MS)
        os.close(process)
