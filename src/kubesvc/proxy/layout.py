"""The data plane's numbers in one place: the table, priorities, the mark bit, classes, and how keys are packed.

    frontend key    address · protocol · port          each field padded to four bytes, as in the kernel's registers
    backend key     frontend key · slot
    endpoint        address · port

    class   0x6b SS MM NNNN     S: affinity (4 bits), scope (2 bits); M: masquerade (2 bits); N: number of endpoints
                                `nft` prints 6b01:3: "3 endpoints, masquerade off-cluster sources"
    slot    0x6b 00 NNNN        `nft` prints 6b00:2

Class and slot travel from one rule to the next in `meta priority`. The magic first byte keeps a packet's own priority
(a small number, or an administrator's traffic class) from ever matching, and lets the last rule clear ours.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import cache
from ipaddress import IPv4Address, IPv6Address

TABLE = "kubesvc"
LAYOUT = "kubesvc data plane, layout 1"
"""The table's comment. A table with another one is replaced whole: its maps may have other types."""

MARK = 0x4000
"""Bit 14 of the packet mark: masquerade this connection. Set before dnat, cleared in postrouting."""

DSTNAT = -100
FILTER = 0
SRCNAT = 100

TCP, UDP, SCTP = 6, 17, 132
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
MOST_ENDPOINTS = 0xFFFF

MAGIC = 0x6B << 24
MAGIC_MASK = 0xFF << 24
SLOTS = MAGIC  # slot 0: no class has masquerade 0
_OCTETS = {str(number): number for number in range(256)}


class Masquerade(IntEnum):
    """Whose source address a connection through a frontend loses."""

    OFF_CLUSTER = 1  # sources that are not pods of this cluster
    ALWAYS = 2
    NEVER = 3


class Refusal(IntEnum):
    """What becomes of a new connection to a frontend that has no endpoint. The numbers are classes of `refused`."""

    REJECT = 0x6BFF0001
    DROP = 0x6BFF0002


def class_of(masquerade: int, endpoints: int) -> int:
    """The class of a frontend with this many endpoints (at least one)."""
    return MAGIC | masquerade << 16 | endpoints


def describe_class(number: int) -> tuple[Masquerade, int]:
    """The inverse of `class_of`."""
    return Masquerade(number >> 16 & 3), number & 0xFFFF


@cache
def tail(protocol: int, port: int) -> bytes:
    """Protocol and port as a frontend's key ends."""
    return struct.pack(">B3xH2x", protocol, port)


@cache
def port_data(port: int) -> bytes:
    """A port as an endpoint ends."""
    return struct.pack(">H2x", port)


@cache
def slot(number: int) -> bytes:
    """A slot as a backend's key ends."""
    return struct.pack("=I", SLOTS | number)


def pack(address: str) -> bytes:
    """4 or 16 bytes. Raises ValueError. Leading zeros are decimal, as stored objects may have them."""
    try:
        a, b, c, d = address.split(".")
        return bytes((_OCTETS[a], _OCTETS[b], _OCTETS[c], _OCTETS[d]))
    except (ValueError, KeyError):
        return _pack_carefully(address)


def _pack_carefully(address: str) -> bytes:
    if ":" in address:
        return IPv6Address(address).packed
    packed = bytes(map(int, address.split(".")))
    if len(packed) != 4:
        raise ValueError(f"{address!r} is not an IP address")
    return packed


def unpack(address: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(address) if len(address) == 4 else IPv6Address(address)


def family(address: bytes) -> str:
    """The suffix of the maps an address belongs in: "4" or "6"."""
    return "4" if len(address) == 4 else "6"


def split_endpoint(endpoint: bytes) -> tuple[bytes, int]:
    """Address and port of an endpoint."""
    return endpoint[:-4], int.from_bytes(endpoint[-4:-2], "big")


def split_key(key: bytes) -> tuple[bytes, int, int]:
    """Address, protocol and port of a frontend's key."""
    return key[:-8], key[-8], int.from_bytes(key[-4:-2], "big")


def show_endpoint(endpoint: bytes) -> str:
    address, port = split_endpoint(endpoint)
    return f"{unpack(address)}:{port}" if len(address) == 4 else f"[{unpack(address)}]:{port}"
