"""The first process of a PID namespace that a pod's containers share: it waits, and collects who was left behind.

    agent ──► setsid ──► unshare ──fork──► sleep, process 1 of the namespace; the kernel collects what ends below it
                            └── pins the namespace at PODS/UID/pidns, where the runtime finds it

It outlives the agent as containers do, and is known by its last argument, the pod's directory. Killing `unshare` kills
the first process, and with it all of the namespace.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kubesvc.kernel import mounts, netns
from kubesvc.node import processes
from kubesvc.node.config import PodPaths
from kubesvc.node.runtime import SEARCH

# Children of who ignores SIGCHLD are nobody's to collect; that is inherited by `sleep`.
_FIRST = "echo there; exec env --ignore-signal=CHLD sleep infinity >/dev/null"


def ensure(paths: PodPaths) -> Path:
    """The namespace of the pod at `paths`, made where there is none. Raises OSError."""
    where = paths.pidns
    if netns.is_namespace(where) and _there(paths):
        return where
    remove(paths)
    where.touch(mode=0o444)
    command = ["setsid", "--fork", "unshare", "--fork", "--kill-child", f"--pid={where}"]
    reading, writing = os.pipe()
    try:
        subprocess.run(
            [*command, "/bin/sh", "-c", _FIRST, str(paths.root)],
            env={"PATH": SEARCH},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            check=False,
        )
        os.close(writing)
        writing = -1
        answer = os.read(reading, 4096)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    if answer != b"there\n":
        raise OSError(f"unshare: no PID namespace for the pod: {answer.decode(errors='replace').strip() or 'it ended'}")
    return where


def remove(paths: PodPaths) -> None:
    """End whatever runs in the pod's shared namespace, and the namespace. Again, or without one, is fine."""
    if not paths.pidns.exists():
        return
    processes.kill(processes.with_argument(str(paths.root)))
    mounts.unmount_all(paths.pidns)
    paths.pidns.unlink(missing_ok=True)


def _there(paths: PodPaths) -> bool:
    found = list(processes.with_argument(str(paths.root)))
    for process in found:
        os.close(process)
    return bool(found)
