"""Hearing that an address of this network namespace came or went. linux/rtnetlink.h."""

from __future__ import annotations

import errno
import socket

from kubesvc.kernel.descriptors import readable

_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100


class AddressMonitor:
    """Lives in the network namespace that the calling thread is in when it is made."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))

    def close(self) -> None:
        self._socket.close()

    async def changed(self) -> None:
        """Wait until something changed since this was called last; what, is to be read anew."""
        await readable(self._socket.fileno())
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:  # told more than it could hold: a change, too
                if error.errno != errno.ENOBUFS:
                    raise
