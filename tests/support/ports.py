"""Ports for programs that are told one."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

_GIVEN: list[socket.socket] = []
"""A name in this network namespace for each port given, so that no other test gets it before it is bound, in this
process or another; the kernel takes them back when the process ends."""


def free_port() -> int:
    """A port that nobody has, in either family, TCP or UDP, below those that the kernel gives to connections. It is
    given once."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10000, min(lowest, 30000))
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0kubesvc-test-port-{port}")
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET6, kind) as one:
                    one.bind(("::", port))
        except OSError as error:
            name.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            _GIVEN.append(name)
            return port
