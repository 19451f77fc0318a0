"""Whether a box runs: a lock on a file, held by the supervisor and, since they are forked from it, by its children.

The kernel drops it when the last of them is gone, however they ended, so there is no stale pid file to explain away.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def acquire(run_path: Path) -> int | None:
    """A descriptor that holds the box's lock, or None while another process holds it."""
    run_path.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(run_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def held(run_path: Path) -> bool:
    """Whether some process of the box lives."""
    if not (run_path / "lock").exists():
        return False
    descriptor = acquire(run_path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False
