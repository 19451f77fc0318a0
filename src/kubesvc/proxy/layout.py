"""The data plane's numbers in one place: the table, priorities, the mark bit, classes, and how keys are packed.

    frontend key    address · protocol · port          each field padded to four bytes, as in the kernel's registers
    backend key     frontend key · slot
    endpoint        address · port

    class        0x6b TTTTTSMM NNNN     T: affinity (5 bits, which time-out); S: scope (1 bit); M: masquerade (2 bits);
                                        N: number of endpoints
                                        `nft` prints 6b01:3: "3 endpoints, masquerade off-cluster sources"
                 0x6a …                 sticky by client and address; 0x69: by client, protocol and port (node ports)
    slot         0x6b 00000S00 NNNN     `nft` prints 6b00:2
    endpoint id  0x68 SIIIIIII IIII     I: 23 bits of a hash of the endpoint's address, which outlive a restart

Scope: what all sources may reach, or what sources outside the cluster may (externalTrafficPolicy Local). Class, slot
and id travel from one rule to the next in `meta priority`. The magic first six bits keep a packet's own priority (a
small number, or an administrator's traffic class) from ever matching, and let the last rule clear ours.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable
from enum import IntEnum
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple
from zlib import crc32

TABLE = "kubesvc"
LAYOUT = "kubesvc data plane, layout 2"
"""The table's comment. A table with another one is replaced whole: its maps may have other types."""

MARK = 0x4000
"""Bit 14 of the packet mark: masquerade this connection. Set before dnat, cleared in postrouting."""

RAW = -300
DSTNAT = -100
FILTER = 0
SRCNAT = 100

TCP, UDP, SCTP = 6, 17, 132
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
MOST_ENDPOINTS = 0xFFFF

MAGIC = 0x1A << 26
MAGIC_MASK = 0x3F << 26
_PLAIN, _STICKY, _STICKY_PORT, _ID = 0x6B << 24, 0x6A << 24, 0x69 << 24, 0x68 << 24
_OUTSIDE = 1 << 18
SLOTS = _PLAIN  # slot 0: no class has masquerade 0
OUTSIDE_SLOTS = _PLAIN | _OUTSIDE
ID_SCOPE_MASK = 0xFF80 << 16
IDS, OUTSIDE_IDS = _ID, _ID | 1 << 23
_ID_BITS = (1 << 23) - 1

AFFINITY_SIZE = 65536
"""Clients remembered in each affinity map. While one is full, newcomers get a random endpoint each time."""

TIMEOUTS = (
    *(1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1200, 1800, 2700),
    *(halves * 1800 for halves in (2, 3, 4, 6, 8, 12, 16, 20, 24, 36, 48)),  # an hour, one and a half, … a day
)
"""Seconds. A session is kept for the first of these that is no shorter than what the Service asks: rules carry the
time-out, and rules don't grow with Services."""
_OCTETS = {str(number): number for number in range(256)}


class Masquerade(IntEnum):
    """Whose source address a connection through a frontend loses."""

    OFF_CLUSTER = 1  # sources that are not pods of this cluster
    ALWAYS = 2
    NEVER = 3


class Refusal(IntEnum):
    """What becomes of a new connection to a frontend that has no endpoint. DROP is a class of `frontends`."""

    REJECT = 0x6B080001
    DROP = 0x6B080002


class Class(NamedTuple):
    """What frontends of one class have in common. `timeout` in seconds, one of TIMEOUTS; 0: no affinity."""

    masquerade: Masquerade
    endpoints: int
    outside: bool = False
    timeout: int = 0
    by_port: bool = False

    @property
    def number(self) -> int:
        magic = _PLAIN if not self.timeout else _STICKY_PORT if self.by_port else _STICKY
        which = TIMEOUTS.index(self.timeout) + 1 if self.timeout else 0
        return magic | which << 19 | self.outside << 18 | self.masquerade << 16 | self.endpoints

    @classmethod
    def of(cls, number: int) -> Class:
        """The inverse of `number`."""
        which = number >> 19 & 0x1F
        timeout = TIMEOUTS[which - 1] if which else 0
        by_port = number >> 24 == _STICKY_PORT >> 24
        return cls(Masquerade(number >> 16 & 3), number & 0xFFFF, bool(number & _OUTSIDE), timeout, by_port)


def keep_for(seconds: int) -> int:
    """The time-out that sessions of a Service that asks for this one get; 0 stays 0."""
    return TIMEOUTS[min(bisect_left(TIMEOUTS, seconds), len(TIMEOUTS) - 1)] if seconds else 0


def plain_class(masquerade: int, endpoints: int) -> int:
    """The class of nearly every frontend: no affinity, one scope."""
    return _PLAIN | masquerade << 16 | endpoints


def endpoint_ids(endpoints: Iterable[bytes], *, outside: bool = False) -> dict[bytes, bytes]:
    """endpoint -> its id, packed. A pod has one id at every port of a Service, in every process; where two pods' hashes
    meet (2 in 1,000 Services of 200 pods), the one with the higher address takes the next id."""
    found: dict[bytes, bytes] = {}
    taken: set[int] = set()
    for endpoint in sorted(endpoints):
        number = crc32(endpoint[:-4]) & _ID_BITS
        while number in taken:
            number = (number + 1) & _ID_BITS
        taken.add(number)
        found[endpoint] = struct.pack("=I", number | (OUTSIDE_IDS if outside else IDS))
    return found


@cache
def tail(protocol: int, port: int) -> bytes:
    """Protocol and port as a frontend's key ends."""
    return struct.pack(">B3xH2x", protocol, port)


@cache
def port_data(port: int) -> bytes:
    """A port as an endpoint ends."""
    return struct.pack(">H2x", port)


@cache
def slot(number: int, *, outside: bool = False) -> bytes:
    """A slot as a backend's key ends."""
    return struct.pack("=I", (OUTSIDE_SLOTS if outside else SLOTS) | number)


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
