"""Ports for programs that are told one."""

from __future__ import annotations

import errno
import os
import random
import socket
from pathlib import Path

PROCESSES = 8  # of one run, side by side: each draws from ports of its own


def free_port() -> int:
    """A port that nobody has, in either family, TCP or UDP, below those that the kernel gives to connections."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10000 + worker % PROCESSES, min(lowest, 30000), PROCESSES)
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET6, kind) as one:
                    one.bind(("::", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return port
