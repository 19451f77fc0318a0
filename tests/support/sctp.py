"""SCTP without a kernel that has it: an INIT packet (RFC 9260) made by hand, sent and received over raw sockets."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from support.net import Namespace

PROTOCOL = 132
_POLYNOMIAL = 0x82F63B78  # CRC32c, reflected


def _checksum(data: bytes) -> int:
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (_POLYNOMIAL if found & 1 else 0)
    return found ^ 0xFFFFFFFF


def packet(source_port: int, port: int) -> bytes:
    """A common header and an INIT chunk."""
    init = struct.pack(">BBHIIHHI", 1, 0, 20, 0xC0FFEE, 65536, 1, 1, 1)
    header = struct.pack(">HHI", source_port, port, 0)
    return header + struct.pack("<I", _checksum(header + bytes(4) + init)) + init


def port_of(received: bytes) -> int:
    """The destination port, after the checksum was found right."""
    whole = received[:8] + bytes(4) + received[12:]
    assert struct.unpack("<I", received[8:12])[0] == _checksum(whole), "the checksum wasn't corrected"
    return int(struct.unpack(">H", received[2:4])[0])


@contextmanager
def listening(pods: Mapping[str, Namespace], family: int) -> Iterator[dict[socket.socket, str]]:
    """Sockets that hear every SCTP packet: socket -> pod."""
    with ExitStack() as stack:
        made = {stack.enter_context(pod.socket_of(PROTOCOL, family)): name for name, pod in pods.items()}
        yield made


def knock(
    where: Namespace, address: str, port: int, ears: Mapping[socket.socket, str], timeout: float
) -> tuple[str, str, int]:
    """Send an INIT: the pod that heard it, the source it saw, and the port. Raises OSError as recv() does."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with where.socket_of(PROTOCOL, family) as asking:
        asking.connect((address, 0))
        asking.send(packet(5000, port))
        heard, _, _ = select.select([*ears, asking], [], [], timeout)
        if not heard:
            raise TimeoutError
        if asking in heard:
            asking.recv(512)
        received, peer = heard[0].recvfrom(512)
        if family == socket.AF_INET:
            received = received[(received[0] & 15) * 4 :]
        return ears[heard[0]], peer[0], port_of(received)
