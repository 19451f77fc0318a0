"""One gRPC health question over HTTP/2 in clear: grpc.health.v1.Health/Check, as probes ask it. RFC 9113, RFC 7541.

    ► preface, SETTINGS, HEADERS (stream 1), DATA: 0 · length · HealthCheckRequest { service = 1 }
    ◄ SETTINGS …, HEADERS, DATA: 0 · length · HealthCheckResponse { status = 1 }, HEADERS (trailers)

A client that asks once needs little: header fields are sent as literals, and of what comes back only the message is
read; a server that answers without one has refused, whatever its trailers say.
"""

from __future__ import annotations

import asyncio
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED = 0x4, 0x8
_LARGEST = 1 << 14  # bytes of a frame, unless a SETTINGS says otherwise
SERVING = 1
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


class NoAnswer(Exception):
    """The server closed, or answered with something that is not a health."""


async def ask(address: str, port: int, service: str, agent: str) -> int:
    """The service's status, a number of `STATUSES`. Raises OSError, NoAnswer."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(_question(f"{address}:{port}", service, agent))
        message = await _answer(reader, writer)
    except asyncio.IncompleteReadError as error:
        raise NoAnswer("the connection was closed before an answer came") from error
    finally:
        writer.close()
    return _status(message)


# ── what is sent ──


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _field(name: str, value: str) -> bytes:
    """A literal header field, not indexed, not compressed; shorter than 127 bytes, as all of ours."""
    return b"\x00" + b"".join(bytes((len(text),)) + text.encode() for text in (name, value[:126]))


def _question(authority: str, service: str, agent: str) -> bytes:
    fields = (
        (":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority), ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", agent),
    )  # fmt: skip
    name = service.encode()
    request = b"\x0a" + _varint(len(name)) + name if name else b""
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, b"".join(_field(*field) for field in fields))
        + _frame(_DATA, _END_STREAM, 1, struct.pack(">BI", 0, len(request)) + request)
    )


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


# ── what comes back ──


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The message of the answer, without its prefix."""
    found = b""
    while True:
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        if length > _LARGEST:
            raise NoAnswer("malformed HTTP/2 response")
        payload = await reader.readexactly(length)
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            writer.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind in (_GOAWAY, _RST_STREAM):
            raise NoAnswer("the server refused the request")
        elif kind == _DATA:
            found += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
            if len(found) >= 5 and len(found) >= 5 + (size := int.from_bytes(found[1:5], "big")):
                return found[5 : 5 + size]
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            raise NoAnswer("the server answered without a health: it doesn't know the service, or the protocol")


def _status(message: bytes) -> int:
    """Field 1 of the message; absent, it is 0."""
    if not message:
        return 0
    if len(message) < 2 or message[0] != 0x08 or message[1] >= len(STATUSES):
        raise NoAnswer("malformed HealthCheckResponse")
    return message[1]
