"""Control groups: whether containers can have one here, and the removal of what was made. Versions 1, 2 and both."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def roots() -> list[Path]:
    """The mount points of every hierarchy."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(fields.split()[4]))
    return found


def writable() -> bool:
    """Whether groups can be made in every hierarchy; in a container they are often mounted read-only."""
    hierarchies = roots()
    return bool(hierarchies) and all(os.access(root, os.W_OK) for root in hierarchies)


def processes(path: str) -> set[int]:
    """The pids in group `path` and below it, in any hierarchy."""
    found: set[int] = set()
    for root in roots():
        for directory, _, files in os.walk(root / path.lstrip("/")):
            if "cgroup.procs" in files:
                with suppress(OSError):
                    found |= {int(pid) for pid in Path(directory, "cgroup.procs").read_text().split()}
    return found - {0}


def oom_kills(path: str) -> int:
    """How many processes of group `path` the kernel has killed for want of memory; 0 too where nobody counts."""
    for root in roots():
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError, ValueError):
                lines = (root / path.lstrip("/") / name).read_text().splitlines()
                if counts := [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]:
                    return counts[0]
    return 0


def remove(path: str) -> None:
    """Remove group `path` (/kubesvc/BOX/NODE) with what is below it in every hierarchy, and parents left empty."""
    for root in roots():
        top = root / path.lstrip("/")
        for directory, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
        for parent in top.parents:
            if parent == root:
                break
            try:
                parent.rmdir()
            except OSError:
                break
