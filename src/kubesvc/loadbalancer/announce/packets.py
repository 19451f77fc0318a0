"""Packet sockets for one interface: ARP, neighbour solicitations, heartbeats.

A socket belongs to the network namespace of the thread that opens it. Solicitations come through a packet socket, not
an ICMPv6 one, because a neighbour that checks its table asks the address itself, which is never a local one here.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from ipaddress import IPv6Address

from kubesvc.loadbalancer.announce import arp, heartbeat, ndp

SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_MULTICAST = 263, 1, 0  # linux/if_packet.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h


def open_arp(interface: str) -> socket.socket:
    """Raises OSError."""
    return _open(interface, arp.ETH_P_ARP)


def open_ndp(interface: str) -> socket.socket:
    """Neighbour solicitations alone: all other IPv6 stays in the kernel. Raises OSError."""
    opened = _open(interface, ndp.ETH_P_IPV6, bound=False)
    try:
        _attach(opened, _only_solicitations())
        opened.bind((interface, ndp.ETH_P_IPV6))
    except OSError:
        opened.close()
        raise
    return opened


def open_heartbeat(interface: str) -> socket.socket:
    """Raises OSError."""
    opened = _open(interface, heartbeat.ETHERTYPE)
    request = struct.pack("=iHH8s", socket.if_nametoindex(interface), PACKET_MR_MULTICAST, 6, heartbeat.GROUP)
    opened.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
    return opened


class Groups:
    """The solicited-node groups that an interface must be a member of, so that switches that look send us the
    questions. A socket holds some of them: the kernel bounds its memory."""

    PER_SOCKET = 64

    def __init__(self, interface: str) -> None:
        self._index = socket.if_nametoindex(interface)
        self._joined: dict[IPv6Address, socket.socket] = {}
        self._sockets: dict[socket.socket, int] = {}  # socket -> how many groups it holds

    def become(self, groups: set[IPv6Address]) -> None:
        """Be a member of these and no others, as far as the kernel lets us."""
        for group in self._joined.keys() - groups:
            self._change(self._joined.pop(group), socket.IPV6_LEAVE_GROUP, group, -1)
        for group in groups - self._joined.keys():
            holder = next((s for s, held in self._sockets.items() if held < self.PER_SOCKET), None)
            if holder is None:
                holder = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                self._sockets[holder] = 0
            self._joined[group] = holder
            self._change(holder, socket.IPV6_JOIN_GROUP, group, 1)

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()

    def _change(self, holder: socket.socket, option: int, group: IPv6Address, by: int) -> None:
        self._sockets[holder] += by
        try:
            holder.setsockopt(socket.IPPROTO_IPV6, option, group.packed + struct.pack("=I", self._index))
        except OSError:  # IPv6 is off on this interface: then nobody asks either
            pass


def _open(interface: str, protocol: int, *, bound: bool = True) -> socket.socket:
    # Protocol 0 until bound: nothing of other interfaces is queued.
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        if bound:
            opened.bind((interface, protocol))
    except OSError:
        opened.close()
        raise
    return opened


def _only_solicitations() -> bytes:
    """A classic BPF program: next header is ICMPv6 and its type 135."""
    load_byte, jump_equal, give = 0x30, 0x15, 0x06
    program = [
        (load_byte, 0, 0, 20),
        (jump_equal, 0, 3, ndp.NEXT_ICMPV6),
        (load_byte, 0, 0, 54),
        (jump_equal, 0, 1, ndp.SOLICITATION),
        (give, 0, 0, 0xFFFF),
        (give, 0, 0, 0),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _attach(opened: socket.socket, program: bytes) -> None:
    kept = ctypes.create_string_buffer(program, len(program))
    length = len(program) // 8
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", length, ctypes.addressof(kept)))
