"""The expressions rules are made of, encoded as linux/netfilter/nf_tables.h has them.

Registers are counted in 32-bit words from 0 to 15: a key of several fields lies in consecutive words, each field padded
to whole words. They are spelled on the wire as Debian's `nft` spells them (NFT_REG_1 for word 0, 4, …), because
version 1.0.6 prints a rule in clear only then.
"""

from __future__ import annotations

import struct
from typing import ClassVar

import msgspec

from kubesvc.kernel.netlink import attribute, be32, nested, text

NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10

# enum nft_meta_keys
META_PRIORITY, META_MARK, META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 2, 3, 6, 7, 15, 16
# enum nft_ct_keys
CT_STATE, CT_DIRECTION, CT_STATUS, CT_MARK = 0, 1, 2, 3
CT_STATE_NEW = 0x8
CT_ORIGINAL, CT_REPLY = 0, 1  # directions
CT_STATUS_DNAT = 0x20
# enum nft_payload_bases
LINK, NETWORK, TRANSPORT = 0, 1, 2
# enum nft_dynset_ops
UPDATE, DELETE = 1, 2
# route types, linux/rtnetlink.h
RTN_LOCAL = 2
# enum nft_verdicts
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5

_REJECT_TCP_RST, _REJECT_ICMPX, _ICMPX_PORT_UNREACH = 1, 2, 1
_FIB_RESULT_ADDRTYPE, _FIB_DADDR = 3, 1 << 1
_NUMGEN_RANDOM = 1
_NAT_DNAT = 1
_RANDOM_FULLY = 1 << 4


def register(word: int) -> int:
    """The wire's number of a register: whole 128-bit ones where they start, 32-bit ones between."""
    return 1 + word // 4 if word % 4 == 0 else 8 + word


def native32(value: int) -> bytes:
    """A 32-bit number as the kernel holds it in a register: marks, priorities, numgen."""
    return struct.pack("=I", value)


class Expression(msgspec.Struct, frozen=True):
    """One instruction. `name` is the kernel's."""

    name: ClassVar[str]

    def attributes(self) -> bytes:
        raise NotImplementedError

    def encode(self) -> bytes:
        """As an element of a rule's expression list."""
        return nested(1, text(1, self.name), nested(2, self.attributes()))


class Payload(Expression, frozen=True):
    """Load `length` bytes of a packet's header."""

    name: ClassVar[str] = "payload"
    base: int
    offset: int
    length: int
    into: int = 0

    def attributes(self) -> bytes:
        return be32(1, register(self.into)) + be32(2, self.base) + be32(3, self.offset) + be32(4, self.length)


class Meta(Expression, frozen=True):
    """Load what the kernel knows about a packet."""

    name: ClassVar[str] = "meta"
    key: int
    into: int = 0

    def attributes(self) -> bytes:
        return be32(2, self.key) + be32(1, register(self.into))


class SetMeta(Expression, frozen=True):
    name: ClassVar[str] = "meta"
    key: int
    source: int = 0

    def attributes(self) -> bytes:
        return be32(2, self.key) + be32(3, register(self.source))


class DestinationType(Expression, frozen=True):
    """Load what kind of address (RTN_*) the packet's destination is to this namespace."""

    name: ClassVar[str] = "fib"
    into: int = 0

    def attributes(self) -> bytes:
        return be32(1, register(self.into)) + be32(2, _FIB_RESULT_ADDRTYPE) + be32(3, _FIB_DADDR)


class Conntrack(Expression, frozen=True):
    """Load a fact about a packet's connection."""

    name: ClassVar[str] = "ct"
    key: int
    into: int = 0

    def attributes(self) -> bytes:
        return be32(2, self.key) + be32(1, register(self.into))


class SetConntrack(Expression, frozen=True):
    name: ClassVar[str] = "ct"
    key: int
    source: int = 0

    def attributes(self) -> bytes:
        return be32(2, self.key) + be32(4, register(self.source))


class Compare(Expression, frozen=True):
    """Go on with this rule only if the register equals (or with `negated` differs from) `value`."""

    name: ClassVar[str] = "cmp"
    value: bytes
    source: int = 0
    negated: bool = False

    def attributes(self) -> bytes:
        return be32(1, register(self.source)) + be32(2, int(self.negated)) + nested(3, attribute(1, self.value))


class Bitwise(Expression, frozen=True):
    """register = (register & mask) ^ xor, on one 32-bit word."""

    name: ClassVar[str] = "bitwise"
    mask: int
    xor: int = 0
    word: int = 0

    def attributes(self) -> bytes:
        return (
            be32(1, register(self.word))
            + be32(2, register(self.word))
            + be32(3, 4)
            + nested(4, attribute(1, native32(self.mask)))
            + nested(5, attribute(1, native32(self.xor)))
        )


class Mask(Expression, frozen=True):
    """Keep the bits of a prefix, in network order, from word 0 on."""

    name: ClassVar[str] = "bitwise"
    mask: bytes

    def attributes(self) -> bytes:
        length = len(self.mask)
        return (
            be32(1, register(0))
            + be32(2, register(0))
            + be32(3, length)
            + nested(4, attribute(1, self.mask))
            + nested(5, attribute(1, bytes(length)))
        )


class Immediate(Expression, frozen=True):
    """Put a constant into a register."""

    name: ClassVar[str] = "immediate"
    value: bytes
    into: int = 0

    def attributes(self) -> bytes:
        return be32(1, register(self.into)) + nested(2, attribute(1, self.value))


class Verdict(Expression, frozen=True):
    """End the rule with a verdict; `chain` for JUMP and GOTO."""

    name: ClassVar[str] = "immediate"
    code: int
    chain: str = ""

    def attributes(self) -> bytes:
        return be32(1, 0) + nested(2, verdict(self.code, self.chain))


def verdict(code: int, chain: str = "") -> bytes:
    """NFTA_DATA_VERDICT, as rules and verdict maps hold it."""
    return nested(2, be32(1, code), text(2, chain) if chain else b"")


class Lookup(Expression, frozen=True):
    """Look a key up: in a set, go on only if it is there (`negated`: only if not); in a map, also load what it maps to.
    A map of verdicts (`verdicts`) is obeyed at once."""

    name: ClassVar[str] = "lookup"
    set: str
    source: int = 0
    into: int | None = None
    verdicts: bool = False
    negated: bool = False

    def attributes(self) -> bytes:
        into = be32(3, 0) if self.verdicts else b"" if self.into is None else be32(3, register(self.into))
        flags = be32(5, 1) if self.negated else b""  # NFT_LOOKUP_F_INV
        return text(1, self.set) + be32(2, register(self.source)) + into + flags


class DynamicSet(Expression, frozen=True):
    """Change the element whose key is in registers. UPDATE adds it for `timeout` seconds, or if it is there gives it
    that long again and *leaves its data alone*; go on only if there was room. DELETE always goes on."""

    name: ClassVar[str] = "dynset"
    set: str
    operation: int
    key: int
    data: int
    timeout: int = 0

    def attributes(self) -> bytes:
        lasts = attribute(6, struct.pack(">Q", self.timeout * 1000)) if self.timeout else b""
        named = text(1, self.set) + be32(3, self.operation)
        return named + be32(4, register(self.key)) + be32(5, register(self.data)) + lasts


class RandomNumber(Expression, frozen=True):
    """Load `offset` plus a uniformly random number below `modulus`."""

    name: ClassVar[str] = "numgen"
    modulus: int
    offset: int = 0
    into: int = 0

    def attributes(self) -> bytes:
        return be32(1, register(self.into)) + be32(2, self.modulus) + be32(3, _NUMGEN_RANDOM) + be32(4, self.offset)


class JenkinsHash(Expression, frozen=True):
    """Load `offset` plus a hash, below `modulus`, of `length` bytes from word `source` on. A `seed` of the caller's
    makes it the same everywhere (but where byte orders differ)."""

    name: ClassVar[str] = "hash"
    source: int
    length: int
    modulus: int
    seed: int
    offset: int = 0
    into: int = 0

    def attributes(self) -> bytes:
        registers = be32(1, register(self.source)) + be32(2, register(self.into))
        numbers = be32(3, self.length) + be32(4, self.modulus) + be32(5, self.seed) + be32(6, self.offset)
        return registers + numbers + be32(7, 0)  # NFT_HASH_JENKINS


class Dnat(Expression, frozen=True):
    """Send the connection to the address and port in registers. Ends the hook."""

    name: ClassVar[str] = "nat"
    family: int  # NFPROTO_*
    address: int
    port: int

    def attributes(self) -> bytes:
        address, port = register(self.address), register(self.port)
        return be32(1, _NAT_DNAT) + be32(2, self.family) + be32(3, address) + be32(5, port)


class Masquerade(Expression, frozen=True):
    """Give the connection the outgoing link's address as its source, and a random port. Ends the hook."""

    name: ClassVar[str] = "masq"

    def attributes(self) -> bytes:
        return be32(1, _RANDOM_FULLY)


class Reject(Expression, frozen=True):
    """Answer with ICMP or ICMPv6 port unreachable, or for TCP with a reset. Only in filter hooks."""

    name: ClassVar[str] = "reject"
    reset: bool = False

    def attributes(self) -> bytes:
        if self.reset:
            return be32(1, _REJECT_TCP_RST) + attribute(2, b"\0")
        return be32(1, _REJECT_ICMPX) + attribute(2, bytes((_ICMPX_PORT_UNREACH,)))
