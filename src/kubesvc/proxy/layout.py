"""The data plane's numbers in one place: the table, priorities, the mark bit, classes, and how keys are packed.

    frontend key    address · protocol · port          each field padded to four bytes, as in the kernel's registers
    backend key     frontend key · slot
    endpoint        address · port

    class        0x6b TTTTTSMM NNNN     T: affinity (5 bits, which time-out); S: scope (1 bit); M: masquerade (2 bits);
                                        N: number of slots
                                        `nft` prints 6b01:3: "3 slots, masquerade off-cluster sources"
                 0x6a …                 the slot is a hash of the client; 0x69: of the connection; 0x6b: random
    slot         0x6b 00000S00 NNNN     `nft` prints 6b00:2
    endpoint id  0x68 SIIIIIII IIII     I: 23 bits of a hash of the endpoint's address, which outlive a restart; S is
                                        added when it is looked up: what a client is remembered to have is of no scope
    service id   0x6 IIIIIII            I: 28 bits of a hash of the Service's name

Scope: what all sources may reach, or what sources outside the cluster may (externalTrafficPolicy Local). Class, slot
and id travel from one rule to the next in `meta priority`. The magic first six bits keep a packet's own priority (a
small number, or an administrator's traffic class) from ever matching, and let the last rule clear ours. A service id
is in the connection's mark, for as long as a client's memory is looked up.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable
from enum import IntEnum
from functools import cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from sys import byteorder
from typing import NamedTuple
from zlib import crc32

TABLE = "kubesvc"
LAYOUT = "kubesvc data plane, layout 3"
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
_PLAIN, _ID = 0x6B << 24, 0x68 << 24
_OUTSIDE = 1 << 18
SLOTS = _PLAIN  # slot 0: no class has masquerade 0
OUTSIDE_SLOTS = _PLAIN | _OUTSIDE
ID_SCOPE_MASK = 0xFF80 << 16
IDS, OUTSIDE_ID = _ID, 1 << 23
_ID_BITS = (1 << 23) - 1
SERVICE_ID = 0x6 << 28
SERVICE_ID_MASK = 0x7 << 28  # not the first bits: nft prints those as a prefix, 0x60000000/4

AFFINITY_SIZE = 65536
"""Clients and Services remembered in each family. While they are that many, newcomers are not remembered: each of
their connections is placed as if the Service had no affinity."""
LENT = 65536
LENT_FOR = 1
"""Marks of others kept aside at one time in each family, and for how many seconds at most."""

SLOT_TABLE = 16381
"""Slots of a Service with maglev: a prime, a hundred times the endpoints that are spread within 1 %."""
HASH_SEED = 0x6B756265
"""The same on every node, so that all of them choose alike."""

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


class Draw(IntEnum):
    """What decides which slot a connection gets."""

    RANDOM = 0x6B
    CLIENT = 0x6A  # a hash of the client's address
    CONNECTION = 0x69  # a hash of addresses, protocol and ports


class Class(NamedTuple):
    """What frontends of one class have in common. `timeout` in seconds, one of TIMEOUTS; 0: no affinity."""

    masquerade: Masquerade
    slots: int
    outside: bool = False
    timeout: int = 0
    draw: Draw = Draw.RANDOM

    @property
    def number(self) -> int:
        which = TIMEOUTS.index(self.timeout) + 1 if self.timeout else 0
        return self.draw << 24 | which << 19 | self.outside << 18 | self.masquerade << 16 | self.slots

    @classmethod
    def of(cls, number: int) -> Class:
        """The inverse of `number`."""
        which = number >> 19 & 0x1F
        timeout = TIMEOUTS[which - 1] if which else 0
        scope = bool(number & _OUTSIDE)
        return cls(Masquerade(number >> 16 & 3), number & 0xFFFF, scope, timeout, Draw(number >> 24))


def keep_for(seconds: int) -> int:
    """The time-out that sessions of a Service that asks for this one get; 0 stays 0."""
    return TIMEOUTS[min(bisect_left(TIMEOUTS, seconds), len(TIMEOUTS) - 1)] if seconds else 0


def plain_class(masquerade: int, slots: int) -> int:
    """The class of nearly every frontend: random, no affinity, one scope."""
    return _PLAIN | masquerade << 16 | slots


@cache
def service_id(service: tuple[str, str]) -> bytes:
    """The id of a Service, packed: the same at all its addresses and ports, in every process. Where two Services' are
    alike (1 in 500 clusters with 1,000 that have affinity), a client of both moves when it changes between them."""
    digest = blake2b("/".join(service).encode(), digest_size=4).digest()
    return struct.pack("=I", int.from_bytes(digest, "big") >> 4 | SERVICE_ID)


def endpoint_ids(endpoints: Iterable[bytes]) -> dict[bytes, bytes]:
    """endpoint -> its id, packed. A pod has one id at every port of a Service, in every process; where two pods' hashes
    meet (2 in 1,000 Services of 200 pods), the one with the higher address takes the next id."""
    found: dict[bytes, bytes] = {}
    taken: set[int] = set()
    for endpoint in sorted(set(endpoints)):
        number = crc32(endpoint[:-4]) & _ID_BITS
        while number in taken:
            number = (number + 1) & _ID_BITS
        taken.add(number)
        found[endpoint] = struct.pack("=I", number | IDS)
    return found


def outside_id(number: bytes) -> bytes:
    """An endpoint's id as a backend's key ends, where sources outside the cluster are sent to others."""
    return struct.pack("=I", int.from_bytes(number, byteorder) | OUTSIDE_ID)


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
