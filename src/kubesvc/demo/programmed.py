"""When the kernel of each node was told: the nftables notifications of a namespace, timed as they arrive."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from kubesvc.kernel import netns

NETLINK_NETFILTER = 12  # linux/netlink.h
NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_DELSETELEM = 14  # linux/netfilter/nf_tables.h
_HEADER = struct.Struct("=IHHII")  # nlmsghdr


class RemovalWatch:
    """Notes when an address left each node's maps. Open it before the removal can happen; close it after."""

    def __init__(self, namespaces: Mapping[str, Path]) -> None:
        self._sockets = {node: self._open(path) for node, path in namespaces.items()}

    @staticmethod
    def _open(path: Path) -> socket.socket:
        with netns.entered(path):
            notifications = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        notifications.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        notifications.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        return notifications

    def close(self) -> None:
        for notifications in self._sockets.values():
            notifications.close()

    def wait(self, address: IPv4Address, patience: float) -> dict[str, float]:
        """Node -> when (seconds since the epoch) its kernel reported an element with `address` as deleted.

        Nodes that reported none within `patience` seconds are missing.
        """
        found: dict[str, float] = {}
        deadline = time.monotonic() + patience
        while len(found) < len(self._sockets):
            waiting = {sock: node for node, sock in self._sockets.items() if node not in found}
            readable, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
            now = time.time()
            if not readable:
                break
            for notifications in readable:
                if _tells_removal(notifications.recv(1 << 20), address.packed):
                    found[waiting[notifications]] = now
        return found


def _tells_removal(datagram: bytes, packed: bytes) -> bool:
    """Whether one of the messages deletes a map's element that holds `packed`, as key or as data."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, at)
        if kind == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELSETELEM and packed in datagram[at : at + length]:
            return True
        at += max(_HEADER.size, (length + 3) & ~3)
    return False
