"""Tables, chains, rules, sets and maps as values, and the body of the netlink message that adds each.

A set's `typeof` user data is what lets `nft list` print a key of mixed types (a slot is a plain integer, which no type
name stands for). It is written as nft 1.0.6 writes it and never read back.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kubesvc.kernel.netlink import attribute, be32, nested, text
from kubesvc.kernel.nft.expressions import Expression

# enum nft_registers, nf_tables.h
_VERDICT_TYPE = 0xFFFFFF00
_SET_MAP = 0x8  # NFT_SET_MAP
# enum udata_set_type, libnftnl
_KEY_BYTE_ORDER, _DATA_BYTE_ORDER, _KEY_TYPEOF, _DATA_TYPEOF = 0, 1, 3, 4
_HOST_ENDIAN, _BIG_ENDIAN = 1, 2
_CONCATENATION = 13  # EXPR_CONCAT of nft


def _udata(kind: int, value: bytes) -> bytes:
    """libnftnl's user data: type and length in a byte each."""
    return bytes((kind, len(value))) + value


def _udata32(kind: int, value: int) -> bytes:
    return _udata(kind, struct.pack("=I", value))


def _typeof(kind: int, *fields: tuple[int, int]) -> bytes:
    """An expression by its kind and the numbers that describe it."""
    described = b"".join(_udata32(number, value) for number, value in fields)
    return _udata32(0, kind) + _udata(1, described)


@dataclass(frozen=True, slots=True)
class Type:
    """A field of a key or of data: nft's name and number for it, its size, and the expression it is the type of."""

    name: str
    number: int  # enum datatypes of nft
    size: int
    typeof: bytes = b""
    native: bool = False  # host byte order

    @property
    def padded(self) -> int:
        return (self.size + 3) & ~3


# enum expr_types of nft: payload 7, meta 10, numgen 23; payload is (header, field)
IPV4_ADDR = Type("ip daddr", 7, 4, _typeof(7, (0, 12), (1, 12)))
IPV6_ADDR = Type("ip6 daddr", 8, 16, _typeof(7, (0, 13), (1, 9)))
INET_PROTO = Type("meta l4proto", 12, 1, _typeof(9, (0, 16)))
INET_SERVICE = Type("th dport", 13, 2, _typeof(7, (0, 11), (1, 2)))
SLOT = Type("numgen random mod 2", 4, 4, _typeof(23, (0, 1), (1, 2), (2, 0)))
CLASSID = Type("classid", 23, 4, native=True)
VERDICT = Type("verdict", _VERDICT_TYPE, 0)


@dataclass(frozen=True, slots=True)
class Map:
    """A set of keys, or with `data` a map from each key to data. Types in order of the concatenation."""

    name: str
    key: tuple[Type, ...]
    data: tuple[Type, ...] = ()

    @property
    def key_length(self) -> int:
        return sum(t.padded for t in self.key)

    @property
    def data_length(self) -> int:
        return sum(t.padded for t in self.data)

    @property
    def verdicts(self) -> bool:
        return self.data == (VERDICT,)

    def body(self, table: str, number: int) -> bytes:
        """NFTA_SET_*: `number` names the set inside its batch."""
        parts = [
            text(1, table) + text(2, self.name) + be32(3, _SET_MAP if self.data else 0),
            be32(4, _type_number(self.key)) + be32(5, self.key_length),
        ]
        if self.data:
            parts.append(be32(6, _type_number(self.data)) + be32(7, self.data_length))
        return b"".join((*parts, be32(10, number), attribute(13, self._user_data())))

    def _user_data(self) -> bytes:
        found = _udata32(_KEY_BYTE_ORDER, _byte_order(self.key))
        if self.data:
            found += _udata32(_DATA_BYTE_ORDER, _byte_order(self.data))
        if len(self.key) > 1:
            found += self._concatenation(_KEY_TYPEOF, self.key)
        if len(self.data) > 1:
            found += self._concatenation(_DATA_TYPEOF, self.data)
        return found

    def _concatenation(self, kind: int, types: tuple[Type, ...]) -> bytes:
        """Every field's expression where a type has no name of its own; else none, and nft prints the names."""
        fields = b"".join(_udata(i, t.typeof) for i, t in enumerate(types)) if SLOT in self.key else b""
        return _udata(kind, _udata32(0, _CONCATENATION) + _udata(1, fields))


def _type_number(types: tuple[Type, ...]) -> int:
    """nft packs the types of a concatenation, six bits each."""
    if len(types) == 1:
        return types[0].number
    number = 0
    for part in types:
        number = number << 6 | part.number
    return number


def _byte_order(types: tuple[Type, ...]) -> int:
    if len(types) > 1 or types == (VERDICT,):
        return 0
    return _HOST_ENDIAN if types[0].native else _BIG_ENDIAN


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the inet family. `comment` is what `nft list` prints in it."""

    name: str
    comment: str = ""

    def body(self) -> bytes:
        user_data = _udata(0, self.comment.encode() + b"\0") if self.comment else b""
        return text(1, self.name) + be32(2, 0) + (attribute(6, user_data) if user_data else b"")


@dataclass(frozen=True, slots=True)
class Hook:
    """Where packets enter a base chain. type: filter or nat; lower priorities come first."""

    type: str
    name: str  # prerouting, input, forward, output, postrouting
    priority: int


HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}  # enum nf_inet_hooks


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as nft would print it, and the expressions it stands for."""

    text: str
    expressions: tuple[Expression, ...]

    def body(self, table: str, chain: str) -> bytes:
        return text(1, table) + text(2, chain) + nested(4, *(e.encode() for e in self.expressions))


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain and all of its rules; with a hook, a base chain whose policy is accept."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None

    def body(self, table: str) -> bytes:
        found = text(1, table) + text(3, self.name)
        if self.hook is not None:
            found += nested(4, be32(1, HOOKS[self.hook.name]), be32(2, self.hook.priority))
            found += be32(5, 1) + text(7, self.hook.type)  # policy NF_ACCEPT
        return found
