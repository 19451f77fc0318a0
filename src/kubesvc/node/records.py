"""What is written next to a pod on disk, so that an agent started later finds what an earlier one left running.

Small JSON files, replaced atomically: pods/UID/pod.json and one container.json in every attempt's bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from kubesvc.api.pods import Pod
from kubesvc.node.config import PodPaths
from kubesvc.node.lifecycle import Exit

T = TypeVar("T", bound=msgspec.Struct)


class PodRecord(msgspec.Struct, frozen=True):
    """The pod as it was when it began: enough to end it in order when the API has forgotten it."""

    pod: Pod
    address: str  # the primary one; "" on the node's own network
    started_at: float
    more_addresses: tuple[str, ...] = ()  # of another family

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.more_addresses) if self.address else ()

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid


class ContainerRecord(msgspec.Struct, frozen=True):
    """One attempt. `pid` and `pid_start` (ticks, from /proc/PID/stat) name a process for good; 0: it never ran."""

    id: str
    name: str
    attempt: int
    image: str = ""
    stop_signal: str = ""
    pid: int = 0
    pid_start: int = 0
    started_at: float = 0.0
    exit: Exit | None = None
    last: Exit | None = None
    backoff_delay: float = 0.0
    backoff_since: float = 0.0


def save(path: Path, record: msgspec.Struct) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.rename(path)


def load(path: Path, view: type[T]) -> T | None:
    """The record, or None when there is none or it was cut short."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=view)
    except (OSError, msgspec.DecodeError):
        return None


def pods(root: Path) -> list[tuple[PodPaths, PodRecord]]:
    """Every pod recorded under `root` (the `pods` directory)."""
    if not root.is_dir():
        return []
    found = []
    for path in sorted(root.iterdir()):
        record = load(path / "pod.json", PodRecord)
        if record is not None:
            found.append((PodPaths(path), record))
    return found


def attempts(paths: PodPaths, name: str) -> list[int]:
    """The attempts of a container that are on disk, the newest first."""
    directory = paths.containers / name
    if not directory.is_dir():
        return []
    return sorted((int(p.name) for p in directory.iterdir() if p.name.isdigit()), reverse=True)
