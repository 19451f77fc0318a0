"""Netlink's framing: attributes, messages, and a blocking socket. Shared by nftables' codec and route netlink's.

Ours, and no library's: it works inside a running event loop, and the hot path is one `send` with the answer already
queued when it returns. Sizes are in bytes, byte orders as linux/netlink.h has them (native headers, network order
inside nftables' attributes).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kubesvc.kernel import netns

# linux/netlink.h
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_EXCL = 0x200
NLM_F_REPLACE = 0x100
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_OFFS = 2
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
SO_SNDBUFFORCE = 32  # asm-generic/socket.h
SO_RCVBUFFORCE = 33

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class NetlinkError(OSError):
    """The kernel refused a message: `errno`, its own words where it had some, the sequence number refused, and where
    in that message the attribute is that it didn't like (0: it doesn't say)."""

    def __init__(self, number: int, message: str, sequence: int, offset: int = 0) -> None:
        super().__init__(number, f"{os.strerror(number)}{f' ({message})' if message else ''}")
        self.sequence = sequence
        self.offset = offset


class Message(NamedTuple):
    type: int
    flags: int
    sequence: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = len(value)
    return _ATTRIBUTE.pack(length + 4, kind) + value + _PADDING[length & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """A string attribute, with its final NUL."""
    return attribute(kind, value.encode() + b"\0")


def be32(kind: int, value: int) -> bytes:
    """A 32-bit number in network order, as nftables' attributes hold them."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit number in this machine's order, as route netlink's attributes hold them."""
    return attribute(kind, struct.pack("=I", value))


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(len(body) + 16, kind, flags, sequence, 0) + body


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Type -> value of the attributes in `data` from `start` on. Raises ValueError for one that overruns."""
    found: dict[int, bytes] = {}
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            raise ValueError(f"netlink attribute of {length} bytes at {start} of {end}")
        found[kind & NLA_TYPE_MASK] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    start = 0
    while start + 16 <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, start)
        if length < 16:
            raise ValueError(f"netlink message of {length} bytes")
        yield Message(kind, flags, sequence, data[start + 16 : start + length])
        start += (length + 3) & ~3


def refusal(found: Message) -> NetlinkError | None:
    """What an NLMSG_ERROR says; None when it is an acknowledgement."""
    (code,) = struct.unpack_from("=i", found.body)
    if code == 0:
        return None
    (original,) = struct.unpack_from("=I", found.body, 4)
    said, offset = b"", 0
    if found.flags & NLM_F_ACK_TLVS:
        more = attributes(found.body, 20 if found.flags & NLM_F_CAPPED else 4 + original)
        said = more.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0")
        (offset,) = struct.unpack("=I", more.get(NLMSGERR_ATTR_OFFS, bytes(4)))
    (sequence,) = struct.unpack_from("=I", found.body, 12)
    return NetlinkError(-code, said.decode(errors="replace"), sequence, offset)


class NetlinkSocket:
    """A blocking socket of one netlink family, living in one network namespace: the one at `namespace` (a path or
    descriptor), or the one the calling thread is in when it is made. One thread at a time."""

    def __init__(self, protocol: int, namespace: Path | str | int | None = None) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        if namespace is None:
            self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        else:
            self._socket = netns.socket_in(namespace, socket.AF_NETLINK, kind, protocol)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._socket.bind((0, 0))
        self._send_buffer = 0
        self._reserve(1 << 20)

    @property
    def port(self) -> int:
        """What the kernel calls this socket: the sender it names in what others are told."""
        found: int = self._socket.getsockname()[0]
        return found

    def close(self) -> None:
        self._socket.close()

    def _reserve(self, size: int) -> None:
        """A datagram must fit the send buffer whole; the kernel doubles what it is told."""
        if size > self._send_buffer:
            self._send_buffer = max(size + 4096, 2 * self._send_buffer)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, min(self._send_buffer, (1 << 30) - 1))

    def request(self, datagram: bytes) -> list[NetlinkError]:
        """Send, and give every refusal. The kernel works inside `send`: all answers are queued when it returns."""
        self._reserve(len(datagram))
        self._drain()
        self._socket.send(datagram)
        return self._drain()

    def _drain(self) -> list[NetlinkError]:
        refused: list[NetlinkError] = []
        while True:
            try:
                data = self._socket.recv(1 << 18, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return refused
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                refused.append(NetlinkError(errno.ENOBUFS, "more refusals than the socket holds", 0))
                continue
            for found in messages(data):
                if found.type == NLMSG_ERROR and (problem := refusal(found)) is not None:
                    refused.append(problem)

    def ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """One acknowledged request; the bodies of its answers. Raises NetlinkError."""
        self._drain()
        self._socket.send(message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, 1, body))
        return self._collect()[0]

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of every message of a dump; asked again when the kernel's state changed meanwhile."""
        while True:
            self._drain()
            self._socket.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, 1, body))
            found, interrupted = self._collect()
            if not interrupted:
                return found

    def _collect(self) -> tuple[list[bytes], bool]:
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for found in messages(self._socket.recv(1 << 18)):
                interrupted = interrupted or bool(found.flags & NLM_F_DUMP_INTR)
                if found.type == NLMSG_DONE:
                    return bodies, interrupted
                if found.type == NLMSG_ERROR:
                    if (problem := refusal(found)) is not None:
                        raise problem
                    return bodies, interrupted
                bodies.append(found.body)
