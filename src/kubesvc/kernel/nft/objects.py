"""Tables, chains, rules, sets and maps as values, and the body of the netlink message that adds each.

A set's user data tells `nft list` the byte order of what it prints. It is written as nft 1.0.6 writes it and never read
back: newer versions put other things there.
"""

from __future__ import annotations

import struct

import msgspec

from kubesvc.kernel.netlink import attribute, be32, nested, text
from kubesvc.kernel.nft.expressions import Expression

# enum nft_registers, nf_tables.h
_VERDICT_TYPE = 0xFFFFFF00
# enum nft_set_flags
_SET_INTERVAL, _SET_MAP, _SET_TIMEOUT, _SET_EVAL, _SET_CONCAT = 0x4, 0x8, 0x10, 0x20, 0x80
# enum udata_set_type, libnftnl
_KEY_BYTE_ORDER, _DATA_BYTE_ORDER = 0, 1
_HOST_ENDIAN, _BIG_ENDIAN = 1, 2


def _udata(kind: int, value: bytes) -> bytes:
    """libnftnl's user data: type and length in a byte each."""
    return bytes((kind, len(value))) + value


def _udata32(kind: int, value: int) -> bytes:
    return _udata(kind, struct.pack("=I", value))


class Type(msgspec.Struct, frozen=True):
    """A field of a key or of data: nft's name and number for it, and its size."""

    name: str
    number: int  # enum datatypes of nft
    size: int
    native: bool = False  # host byte order

    @property
    def padded(self) -> int:
        return (self.size + 3) & ~3


IPV4_ADDR = Type("ipv4_addr", 7, 4)
IPV6_ADDR = Type("ipv6_addr", 8, 16)
INET_PROTO = Type("inet_proto", 12, 1)
INET_SERVICE = Type("inet_service", 13, 2)
MARK = Type("mark", 19, 4, native=True)
CLASSID = Type("classid", 23, 4, native=True)
VERDICT = Type("verdict", _VERDICT_TYPE, 0)


class Map(msgspec.Struct, frozen=True):
    """A set of keys, or with `data` a map from each key to data. Types in order of the concatenation.

    interval: an element is a range in each field; its key is packed as the first key of the ranges, then the last.
    dynamic: packets add elements, up to this many, and each has a time-out (see `DynamicSet`).
    """

    name: str
    key: tuple[Type, ...]
    data: tuple[Type, ...] = ()
    interval: bool = False
    dynamic: int = 0

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
            text(1, table) + text(2, self.name) + be32(3, self._flags()),
            be32(4, _type_number(self.key)) + be32(5, self.key_length),
        ]
        if self.data:
            parts.append(be32(6, _type_number(self.data)) + be32(7, self.data_length))
        if self.interval:  # NFTA_SET_DESC { NFTA_SET_DESC_CONCAT { NFTA_LIST_ELEM { NFTA_SET_FIELD_LEN } … } }
            parts.append(nested(9, nested(2, *(nested(1, be32(1, t.size)) for t in self.key))))
        if self.dynamic:  # NFTA_SET_DESC { NFTA_SET_DESC_SIZE }
            parts.append(nested(9, be32(1, self.dynamic)))
        return b"".join((*parts, be32(10, number), attribute(13, self._user_data())))

    def _flags(self) -> int:
        return (
            (_SET_MAP if self.data else 0)
            | (_SET_INTERVAL | _SET_CONCAT if self.interval else 0)
            | (_SET_TIMEOUT | _SET_EVAL if self.dynamic else 0)
        )

    def _user_data(self) -> bytes:
        found = _udata32(_KEY_BYTE_ORDER, _byte_order(self.key))
        if self.data:
            found += _udata32(_DATA_BYTE_ORDER, _byte_order(self.data))
        return found


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


class Table(msgspec.Struct, frozen=True):
    """A table of the inet family. `comment` is what `nft list` prints in it."""

    name: str
    comment: str = ""

    def body(self) -> bytes:
        user_data = _udata(0, self.comment.encode() + b"\0") if self.comment else b""
        return text(1, self.name) + be32(2, 0) + (attribute(6, user_data) if user_data else b"")


class Hook(msgspec.Struct, frozen=True):
    """Where packets enter a base chain. type: filter or nat; lower priorities come first."""

    type: str
    name: str  # prerouting, input, forward, output, postrouting
    priority: int


HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}  # enum nf_inet_hooks


class Rule(msgspec.Struct, frozen=True):
    """A rule as nft would print it, and the expressions it stands for."""

    text: str
    expressions: tuple[Expression, ...]

    def body(self, table: str, chain: str) -> bytes:
        return text(1, table) + text(2, chain) + nested(4, *(e.encode() for e in self.expressions))


class Chain(msgspec.Struct, frozen=True):
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
