"""The part of the DNS wire format that the fast path needs: names, records, heads, and reading a query strictly.

Names are wire names (length-prefixed labels, a zero at the end), lower-case wherever they are kept: `bytes.lower`
is safe on them, because a length is at most 63 and the letters begin at 65. Everything odd that arrives in a query is
an `Odd` with the rcode to answer. Messages with many names, as upstreams send them, are dnspython's business.

Follows RFC 1035, 2782 (SRV targets uncompressed), 6891 (EDNS), 8020 (an empty non-terminal exists).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, HINFO, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 13, 16, 28, 33, 41
IXFR, AXFR = 251, 252
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

HEADER = 12  # bytes before the question
TO_QUESTION = b"\xc0\x0c"  # a compression pointer to the question's name, which keeps its case
FARTHEST = 0x3FFF  # what a compression pointer can reach
UDP_SIZE = 512  # without EDNS, and the floor with it
OPT_SIZE = 11  # an OPT record without options
OUR_PAYLOAD = 1232  # what we say we can receive: no fragments on any ordinary path

QUERY_PLAIN = bytes([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0])
"""Bytes 2-12 of what a stub resolver sends: one question, recursion desired, nothing else."""
QUERY_OPT = bytes([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1])
"""The same with one more record, which had better be an OPT."""
OUR_OPT = struct.pack("!BHHIH", 0, OPT, OUR_PAYLOAD, 0, 0)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ZERO_LABEL = b"\0"
_u16 = struct.Struct("!H")
_record = struct.Struct("!HHIH")  # type, class, ttl, length
_header = struct.Struct("!HHHHHH")


class BadName(ValueError):
    """Not a DNS name: an empty label, one over 63 bytes, or more than 255 bytes altogether."""


class Odd(Exception):
    """A query that gets an error instead of an answer; `question` is empty where it couldn't be read."""

    def __init__(self, rcode: int, question: bytes = b"") -> None:
        super().__init__(rcode)
        self.rcode = rcode
        self.question = question


def encode_name(text: str) -> bytes:
    """The lower-case wire name of dotted `text`; a dot at the end is allowed. Raises BadName."""
    stripped = text.lower().removesuffix(".")
    try:
        labels = stripped.encode("ascii").split(b".") if stripped else []
    except UnicodeEncodeError as error:
        raise BadName(f"{text!r} is not ASCII") from error
    return join(labels)


def join(labels: Iterable[bytes], suffix: bytes = _ZERO_LABEL) -> bytes:
    """Labels in front of the wire name `suffix`. Raises BadName."""
    parts = []
    for label in labels:
        if not 1 <= len(label) <= 63:
            raise BadName(f"label {label!r} has {len(label)} bytes; expected 1 to 63")
        parts.append(bytes([len(label)]) + label)
    name = b"".join(parts) + suffix
    if len(name) > 255:
        raise BadName(f"{name!r} has {len(name)} bytes; expected at most 255")
    return name


def labels_over(name: bytes, suffix: bytes) -> list[bytes] | None:
    """The labels of `name` in front of `suffix` (both lower-case wire names), None when it isn't a name under it."""
    end = len(name) - len(suffix)
    if end < 0 or not name.endswith(suffix) or len(name) > 255:
        return None
    found = []
    position = 0
    while position < end:
        after = position + 1 + name[position]
        if not 1 < after - position <= 64:
            return None
        found.append(name[position + 1 : after])
        position = after
    return found if position == end else None


def ancestors(name: bytes, suffix: bytes) -> list[bytes]:
    """`name` and the names above it, down to one label over `suffix`."""
    found = []
    while len(name) > len(suffix):
        found.append(name)
        name = name[1 + name[0] :]
    return found


def to_text(name: bytes) -> str:
    """A wire name for a log line."""
    labels = labels_over(name, _ZERO_LABEL)
    return ".".join(label.decode("ascii", "backslashreplace") for label in labels or []) + "."


def question(name: bytes, kind: int) -> bytes:
    """The question "`name` `kind` IN": what the table of answers is keyed by."""
    return name + _u16.pack(kind) + b"\0\x01"


def record(owner: bytes, kind: int, ttl: int, data: bytes) -> bytes:
    """One resource record; `owner` is a wire name or a compression pointer."""
    return owner + _record.pack(kind, IN, ttl, len(data)) + data


def pointer(offset: int) -> bytes:
    """A compression pointer to `offset` in the message (at most FARTHEST)."""
    return _u16.pack(0xC000 | offset)


def srv(weight: int, port: int, target: bytes) -> bytes:
    """SRV data of priority 0."""
    return struct.pack("!HHH", 0, weight, port) + target


def srv_target(data: bytes) -> bytes:
    return data[6:]


def txt(text: bytes) -> bytes:
    """TXT data of one string."""
    return bytes([len(text)]) + text


def soa(origin: bytes, contact: bytes, serial: int, negative_ttl: int) -> bytes:
    """SOA data with CoreDNS's refresh, retry and expire."""
    return origin + contact + struct.pack("!IIIII", serial & 0xFFFFFFFF, 7200, 1800, 86400, negative_ttl)


def reverse_name(packed: bytes) -> bytes:
    """The wire name under in-addr.arpa or ip6.arpa of an address of 4 or 16 bytes."""
    if len(packed) == 4:
        return b"".join([_OCTETS[byte] for byte in reversed(packed)]) + IN_ADDR
    return join([b"%x" % half for byte in reversed(packed) for half in (byte & 15, byte >> 4)], IP6)


_OCTETS = [join([b"%d" % byte], b"") for byte in range(256)]  # as labels
IN_ADDR = join([b"in-addr", b"arpa"])
IP6 = join([b"ip6", b"arpa"])


def reversed_address(labels: Sequence[bytes]) -> Address | None:
    """The address that `labels` in front of in-addr.arpa or ip6.arpa spell, None when it isn't a whole one."""
    backwards = list(reversed(labels))
    try:
        if len(labels) == 4:
            return ipaddress.IPv4Address(b".".join(backwards).decode())
        return ipaddress.IPv6Address(bytes.fromhex(b"".join(backwards).decode())) if len(labels) == 32 else None
    except ValueError:
        return None


class Query(NamedTuple):
    """A query as it came. `payload` is what its sender can receive over UDP, None when it spoke no EDNS."""

    id: bytes  # 2
    flags: int
    question: bytes  # name, type, class; the case as it came
    payload: int | None = None
    dnssec_ok: bool = False

    @property
    def name(self) -> bytes:
        return self.question[:-4]

    @property
    def type(self) -> int:
        return self.question[-4] << 8 | self.question[-3]


def _skip_name(data: bytes, position: int, *, pointers: bool = True) -> int:
    """Where the name at `position` ends; in a question it can't end in a pointer. Raises Odd."""
    while True:
        length = data[position]
        if length == 0:
            return position + 1
        if length >= 0xC0 and pointers:
            return position + 2
        if length > 63:
            raise Odd(FORMERR)
        position += 1 + length


def parse(data: bytes) -> Query | None:
    """The query in `data`; None for what gets no answer at all (too short, or itself an answer). Raises Odd."""
    if len(data) < HEADER or data[2] & 0x80:
        return None
    _, flags, questions, answers, authority, additional = _header.unpack_from(data)
    if flags >> 11 & 0xF:
        raise Odd(NOTIMP)
    if questions != 1 or answers or authority > 1:
        raise Odd(FORMERR)
    try:
        name_end = _skip_name(data, HEADER, pointers=False)
        end = name_end + 4
        if name_end - HEADER > 255 or end > len(data):
            raise Odd(FORMERR)
        query = Query(data[:2], flags, data[HEADER:end])
        if data[end - 2 : end] != b"\0\x01":
            raise Odd(REFUSED, query.question)
        for _ in range(authority + additional):
            end = _skip_name(data, end)
            kind, size, ttl, length = _record.unpack_from(data, end)
            end += _record.size + length
            if end > len(data):
                raise Odd(FORMERR)
            if kind == OPT:
                if ttl >> 16 & 0xFF:
                    raise Odd(BADVERS, query.question)
                query = query._replace(payload=max(size, UDP_SIZE), dnssec_ok=bool(ttl & 0x8000))
    except (IndexError, struct.error) as error:
        raise Odd(FORMERR) from error
    return query


def error(data: bytes, rcode: int, asked: bytes = b"") -> bytes:
    """An answer without content to the query in `data` (its header at least): the id, opcode and RD come back, and
    the question `asked` where it could be read."""
    flags = 0x8000 | (data[2] & 0x79) << 8 | rcode & 0xF
    opt = struct.pack("!BHHIH", 0, OPT, OUR_PAYLOAD, rcode >> 4 << 24, 0) if rcode > 15 else b""
    return data[:2] + struct.pack("!HHHHH", flags, bool(asked), 0, 0, bool(opt)) + asked + opt
