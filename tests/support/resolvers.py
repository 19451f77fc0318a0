"""Look-ups through a C library's resolver, with a pod's resolv.conf, in a network namespace."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path

DEADLINE = 60.0
GETENT = ("getent", "ahosts")  # glibc
RESOLV = (
    "nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n"
    "options ndots:5 timeout:1 attempts:5\n"
)
BOUND = 'mount --bind "$1" "$(readlink -f /etc/resolv.conf)" && shift && exec "$@"'


async def output(*command: str) -> tuple[int, str]:
    """(exit status, standard output) of a command."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    async with asyncio.timeout(DEADLINE):
        written, _ = await process.communicate()
    return process.returncode or 0, written.decode()


async def looked_up(namespace: str, directory: Path, name: str, program: Sequence[str] = GETENT) -> list[str]:
    """The addresses that `program` prints for `name`, one at the start of each line; none where there are none."""
    conf = directory / "resolv.conf"
    if not conf.exists():  # others may be reading it
        conf.write_text(RESOLV)
    _, text = await output("ip", "netns", "exec", namespace, "sh", "-c", BOUND, "sh", str(conf), *program, name)
    return sorted({line.split()[0] for line in text.splitlines()})
