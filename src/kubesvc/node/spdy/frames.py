"""SPDY/3.1 frames to bytes and back. Pure; section 2.2 and 2.6 of the specification.

    control  1 version:15 type:16  flags:8 length:24  …       data  0 stream:31  flags:8 length:24  …

Header blocks share one zlib stream a direction, so a `Decoder` and an `Encoder` belong to one connection, and every
header block must pass through them. Data comes out of a Decoder in the pieces it came in: a frame of 16 MB is never
held whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

import msgspec

from kubesvc.node.spdy.dictionary import DICTIONARY

VERSION = 3
FIN, UNIDIRECTIONAL = 0x01, 0x02
MAX_CONTROL = 1 << 16  # bytes of a control frame
MAX_HEADERS = 1 << 17  # bytes of a header block, unpacked
MAX_DATA = (1 << 24) - 1

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 2, 3, 5, 6


class SpdyError(Exception):
    """The other side doesn't speak SPDY/3.1; the connection can't go on."""


class SynStream(msgspec.Struct, frozen=True):
    stream: int
    headers: Mapping[str, str] = {}
    fin: bool = False
    unidirectional: bool = False


class SynReply(msgspec.Struct, frozen=True):
    stream: int
    headers: Mapping[str, str] = {}
    fin: bool = False


class Headers(msgspec.Struct, frozen=True):
    stream: int
    headers: Mapping[str, str] = {}
    fin: bool = False


class Data(msgspec.Struct, frozen=True):
    """A piece of a stream; `fin` with the last one."""

    stream: int
    data: bytes
    fin: bool = False


class Reset(msgspec.Struct, frozen=True):
    stream: int
    status: int


class Ping(msgspec.Struct, frozen=True):
    id: int


class GoAway(msgspec.Struct, frozen=True):
    last_stream: int
    status: int = 0


class WindowUpdate(msgspec.Struct, frozen=True):
    """`stream` 0 is the whole connection."""

    stream: int
    delta: int


Frame = SynStream | SynReply | Headers | Data | Reset | Ping | GoAway | WindowUpdate


class Encoder:
    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        match frame:
            case Data(stream, data, fin):
                if len(data) > MAX_DATA:
                    raise ValueError(f"a data frame has at most {MAX_DATA} bytes, not {len(data)}")
                return struct.pack(">II", stream, (FIN if fin else 0) << 24 | len(data)) + data
            case SynStream(stream, headers, fin, unidirectional):
                flags = (FIN if fin else 0) | (UNIDIRECTIONAL if unidirectional else 0)
                return _control(SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._block(headers), flags)
            case SynReply(stream, headers, fin):
                return _control(SYN_REPLY, struct.pack(">I", stream) + self._block(headers), FIN if fin else 0)
            case Headers(stream, headers, fin):
                return _control(HEADERS, struct.pack(">I", stream) + self._block(headers), FIN if fin else 0)
            case Reset(stream, status):
                return _control(RST_STREAM, struct.pack(">II", stream, status))
            case Ping(id_):
                return _control(PING, struct.pack(">I", id_))
            case GoAway(last, status):
                return _control(GOAWAY, struct.pack(">II", last, status))
            case WindowUpdate(stream, delta):
                return _control(WINDOW_UPDATE, struct.pack(">II", stream, delta))

    def _block(self, headers: Mapping[str, str]) -> bytes:
        plain = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                plain += struct.pack(">I", len(text)) + text
        return self._zlib.compress(plain) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


def _control(type_: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, type_, flags << 24 | len(body)) + body


class Decoder:
    """Bytes in, in any pieces; frames out. Raises SpdyError, after which it is of no use."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = bytearray()
        self._stream, self._left, self._fin = 0, 0, False  # of a data frame under way: bytes still to come

    def feed(self, data: bytes) -> Iterator[Frame]:
        """To be iterated to its end before the next call."""
        self._buffer += data
        while self._buffer:
            if self._left:
                piece = bytes(self._buffer[: self._left])
                del self._buffer[: self._left]
                self._left -= len(piece)
                yield Data(self._stream, piece, self._fin and not self._left)
                continue
            if len(self._buffer) < 8:
                return
            first, second = struct.unpack_from(">II", self._buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first & 0x80000000:
                del self._buffer[:8]
                self._stream, self._left, self._fin = first, length, bool(flags & FIN)
                if not length:
                    yield Data(first, b"", self._fin)
                continue
            if (first >> 16) & 0x7FFF != VERSION:
                raise SpdyError(f"SPDY version {(first >> 16) & 0x7FFF}, not {VERSION}")
            if length > MAX_CONTROL:
                raise SpdyError(f"a control frame of {length} bytes; at most {MAX_CONTROL} are taken")
            if len(self._buffer) < 8 + length:
                return
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            frame = self._control(first & 0xFFFF, flags, body)
            if frame is not None:
                yield frame

    def _control(self, type_: int, flags: int, body: bytes) -> Frame | None:
        """None for what is passed over: settings, and types that don't exist."""
        fin = bool(flags & FIN)
        try:
            match type_:
                case 1:
                    headers = self._headers(body[10:])
                    (stream,) = struct.unpack_from(">I", body)
                    return SynStream(stream & 0x7FFFFFFF, headers, fin, bool(flags & UNIDIRECTIONAL))
                case 2 | 8:
                    headers = self._headers(body[4:])
                    (stream,) = struct.unpack_from(">I", body)
                    return (SynReply if type_ == SYN_REPLY else Headers)(stream & 0x7FFFFFFF, headers, fin)
                case 3:
                    return Reset(*struct.unpack_from(">II", body))
                case 6:
                    return Ping(*struct.unpack_from(">I", body))
                case 7:
                    return GoAway(*struct.unpack_from(">II", body))
                case 9:
                    return WindowUpdate(*struct.unpack_from(">II", body))
        except struct.error as error:
            raise SpdyError(f"a frame of type {type_} ends early") from error
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._zlib.decompress(block, MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"a header block that can't be unpacked: {error}") from error
        if self._zlib.unconsumed_tail:
            raise SpdyError(f"a header block of more than {MAX_HEADERS} bytes")
        (count,) = struct.unpack_from(">I", plain)
        at, headers = 4, {}
        for _ in range(count):
            name, at = _text(plain, at)
            value, at = _text(plain, at)
            headers[name] = value
        return headers


def _text(plain: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">I", plain, at)
    end = at + 4 + length
    if end > len(plain):
        raise SpdyError("a header ends early")
    return plain[at + 4 : end].decode(errors="replace"), end
