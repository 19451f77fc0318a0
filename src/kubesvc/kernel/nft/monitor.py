"""What others do to nftables in one network namespace, heard from the kernel as it happens.

The kernel tells a multicast group of every change, and names the socket that made it. A filter in the kernel drops what
our own connection did, so that a change of ours wakes nobody. But telling costs: for each element of a transaction the
kernel holds a notice of 8 KB until it is committed. So a connection pauses its monitor for what is large.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import addressof, create_string_buffer
from typing import NamedTuple

from kubesvc.kernel.netlink import HEADER, SO_RCVBUFFORCE, SOL_NETLINK, attributes

_NETLINK_NETFILTER = 12
_GROUP = 7  # NFNLGRP_NFTABLES
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 1, 2
_SO_ATTACH_FILTER = 26
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_SENDER = 12  # offset of nlmsg_pid

# enum nf_tables_msg_types -> the attribute that holds the name of the thing inside its table
_NAMED = {0: 0, 2: 0, 3: 3, 5: 3, 6: 2, 8: 2, 9: 2, 11: 2, 12: 2, 14: 2}
_WORDS = {0: "table", 3: "chain", 6: "rule in chain", 9: "map", 12: "element of"}
_NEW_GENERATION = 15
_GENERATION_NAME = 3  # NFTA_GEN_PROC_NAME


class Notice(NamedTuple):
    """One change somebody else made. `table` is "" when notices were lost, and so anything may have changed."""

    table: str
    family: int
    """enum nfproto: 1 inet, 2 ip, 7 bridge, 10 ip6."""
    what: str
    """In words: "delete chain"."""
    name: str
    """Of the chain or the map; "" for a table."""
    program: str = ""
    """Who made it: set in a last notice of each transaction, which is about no table in particular."""


class Monitor:
    """Not listening until `listen`. `fileno` can be read when `read` has something to give."""

    def __init__(self, own_port: int) -> None:
        """`own_port`: the port of the connection whose changes are not told."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
        self._socket.bind((0, 0))
        sender = socket.htonl(own_port & 0xFFFFFFFF)  # the filter loads words in network order
        program = b"".join(
            _INSTRUCTION.pack(*line)
            for line in (
                (_LOAD_WORD, 0, 0, _SENDER),
                (_JUMP_EQUAL, 0, 1, sender),
                (_RETURN, 0, 0, 0),
                (_RETURN, 0, 0, 0xFFFFFFFF),
            )
        )
        held = create_string_buffer(program, len(program))
        pointed = struct.pack("@HP", len(program) // _INSTRUCTION.size, addressof(held))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointed)
        self.listening = False
        self.gap = False
        """Whether it has been paused: what others did meanwhile wasn't told. Its reader clears it."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def listen(self) -> None:
        self._socket.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        self.listening = True

    def pause(self) -> None:
        """Stop listening. What has been told already can still be read."""
        self._socket.setsockopt(SOL_NETLINK, _DROP_MEMBERSHIP, _GROUP)
        self.listening, self.gap = False, True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While something large is done, if it listens."""
        if not self.listening:
            yield
            return
        self.pause()
        try:
            yield
        finally:
            self.listen()

    def forget(self) -> None:
        """What has been told."""
        for _ in self.read():
            pass

    def read(self) -> Iterator[Notice]:
        """All that has been told since the last time, without waiting."""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield Notice("", 0, "", "")
                continue
            yield from _decode(data)


def _decode(data: bytes) -> Iterator[Notice]:
    start = 0
    while start + 20 <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, start)
        if length < 16:
            return
        if kind >> 8 == _SUBSYSTEM:
            found = _notice(kind & 0xFF, data[start + 16 : start + length])
            if found is not None:
                yield found
        start += (length + 3) & ~3


def _notice(kind: int, body: bytes) -> Notice | None:
    if kind == _NEW_GENERATION:
        return Notice("", body[0], "", "", _text(attributes(body, 4).get(_GENERATION_NAME, b"")) or "?")
    if kind not in _NAMED:
        return None
    found = attributes(body, 4)
    thing = kind // 3 * 3
    what = f"{'delete' if kind - thing == 2 else 'add'} {_WORDS[thing]}"
    return Notice(_text(found.get(1, b"")), body[0], what, _text(found.get(_NAMED[kind], b"")))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
