"""Elements of sets and maps: the hot path. All of a map's elements have one length, so bytes are joined, not built.

    element   = LIST_ELEM { KEY { VALUE key } DATA { VALUE data } }
    elements  = the same, again and again; a message holds as many as its 16-bit length allows

Keys and data are packed as the kernel holds them in registers: fields in order, each padded to four bytes. A verdict
map's data is the name of the chain to go to; an interval's key is its first key and then its last.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from kubesvc.kernel.netlink import NLA_F_NESTED, attribute, attributes, be32, nested, text
from kubesvc.kernel.nft.expressions import GOTO, verdict
from kubesvc.kernel.nft.objects import Map

# enum nft_set_elem_list_attributes and nft_set_elem_attributes
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_SET_ID = 1, 2, 3, 4
_LIST_ELEM, _KEY, _DATA, _KEY_END, _VALUE = 1, 1, 2, 10, 1
_MOST = 0xFFFF - 4  # bytes of elements in one message: an attribute's length is 16 bits


_LENGTH = struct.Struct("=H")


def _header(length: int, kind: int) -> bytes:
    return struct.pack("=HH", length + 4, kind | NLA_F_NESTED)


def _key_frame(key_length: int, data_length: int | None) -> bytes:
    """All that stands before a key: element, key and value headers."""
    key = 4 + 4 + key_length
    whole = key + (0 if data_length is None else 4 + 4 + data_length)
    return _header(whole, _LIST_ELEM) + _header(4 + key_length, _KEY) + attribute(_VALUE, b"x" * key_length)[:4]


def _data_frame(data_length: int) -> bytes:
    """All that stands between a key and its data."""
    return _header(4 + data_length, _DATA) + attribute(_VALUE, b"x" * data_length)[:4]


def encode_additions(map_: Map, elements: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The elements, as chunks for one message each."""
    if map_.verdicts:
        yield from _chunks([_goto(key, chain.decode()) for key, chain in elements.items()])
        return
    if map_.interval:
        yield from _chunks([_range(key) for key in elements])
        return
    if not map_.data:
        frame = _key_frame(map_.key_length, None)
        yield from _cut(b"".join([part for key in elements for part in (frame, key)]), len(frame) + map_.key_length)
        return
    frame, between = _key_frame(map_.key_length, map_.data_length), _data_frame(map_.data_length)
    whole = b"".join([part for key, data in elements.items() for part in (frame, key, between, data)])
    yield from _cut(whole, len(frame) + map_.key_length + len(between) + map_.data_length)


def encode_deletions(map_: Map, keys: Iterable[bytes]) -> Iterator[bytes]:
    """The keys, as chunks for one message each."""
    if map_.interval:
        yield from _chunks([_range(key) for key in keys])
        return
    frame = _key_frame(map_.key_length, None)
    yield from _cut(b"".join([part for key in keys for part in (frame, key)]), len(frame) + map_.key_length)


def list_body(table: str, map_: Map, chunk: bytes, number: int = 0) -> bytes:
    """The message body around one chunk; `number` where the set was made in the same batch."""
    named = text(_LIST_TABLE, table) + text(_LIST_SET, map_.name) + (be32(_LIST_SET_ID, number) if number else b"")
    return named + attribute(_LIST_ELEMENTS | NLA_F_NESTED, chunk)


def whole_body(table: str, map_: Map) -> bytes:
    """The message body that means every element: to dump them or to flush."""
    return text(_LIST_TABLE, table) + text(_LIST_SET, map_.name)


def decode(map_: Map, bodies: Iterable[bytes]) -> dict[bytes, bytes]:
    """Key -> data from the bodies (after nfgenmsg) of a dump."""
    found: dict[bytes, bytes] = {}
    key_end = 12 + map_.key_length
    data_start = key_end + 8
    length = data_start + map_.data_length if map_.data else key_end
    for body in bodies:
        listed = attributes(body).get(_LIST_ELEMENTS, b"")
        start = 0
        while start < len(listed):
            (size,) = _LENGTH.unpack_from(listed, start)
            if size == length and not (map_.verdicts or map_.interval or map_.dynamic):
                found[listed[start + 12 : start + key_end]] = listed[start + data_start : start + length]
            else:
                key, data = _decode_one(listed[start + 4 : start + size])
                found[key] = data
            start += (size + 3) & ~3
    return found


def count(bodies: Iterable[bytes]) -> int:
    """How many elements a dump has."""
    found = 0
    for body in bodies:
        listed = attributes(body).get(_LIST_ELEMENTS, b"")
        start = 0
        while start < len(listed):
            found += 1
            start += (_LENGTH.unpack_from(listed, start)[0] + 3) & ~3
    return found


def _decode_one(element: bytes) -> tuple[bytes, bytes]:
    """An element of any shape: with verdicts, time-outs or whatever the kernel adds."""
    parts = attributes(element)
    key = attributes(parts[_KEY])[_VALUE]
    if _KEY_END in parts:
        key += attributes(parts[_KEY_END])[_VALUE]
    if _DATA not in parts:
        return key, b""
    data = attributes(parts[_DATA])
    if _VALUE in data:
        return key, data[_VALUE]
    return key, attributes(data[2]).get(2, b"").rstrip(b"\0")  # NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN


def _goto(key: bytes, chain: str) -> bytes:
    return nested(_LIST_ELEM, nested(_KEY, attribute(_VALUE, key)), nested(_DATA, verdict(GOTO, chain)))


def _range(key: bytes) -> bytes:
    middle = len(key) // 2
    first, last = attribute(_VALUE, key[:middle]), attribute(_VALUE, key[middle:])
    return nested(_LIST_ELEM, nested(_KEY, first), nested(_KEY_END, last))


def _chunks(elements: list[bytes]) -> Iterator[bytes]:
    chunk: list[bytes] = []
    size = 0
    for element in elements:
        if size + len(element) > _MOST:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(element)
        size += len(element)
    if chunk:
        yield b"".join(chunk)


def _cut(whole: bytes, length: int) -> Iterator[bytes]:
    step = _MOST // length * length
    for start in range(0, len(whole), step):
        yield whole[start : start + step]
