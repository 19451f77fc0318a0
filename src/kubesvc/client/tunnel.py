"""Byte streams in both directions: asked for by an HTTP upgrade, and joined.

    client ──Upgrade──► API server ──the same request──► node ──► a pod
           ◄═══ the answer's head, then bytes both ways, unread ═══►

Nobody on the way needs to know what is spoken: WebSocket, SPDY, or something of the pod's own. Memory stays bounded
since every write waits for its receiver, and nothing is read meanwhile.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Protocol

import msgspec

BLOCK = 1 << 16
HOP_BY_HOP = frozenset(
    (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "expect",
    )
)  # fmt: skip


class Duplex(Protocol):
    async def read(self) -> bytes:
        """Some bytes; b"" when there will be no more."""
        ...

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. Raises OSError when the other side is gone."""
        ...

    def finish(self) -> None:
        """Nothing more will be written; where the transport can't say that, nothing."""
        ...

    def close(self) -> None: ...


class Wire:
    """A Duplex over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(BLOCK)
        except OSError:  # reset: the end, too
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def finish(self) -> None:
        with suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()


async def join(one: Duplex, other: Duplex) -> None:
    """Copy both ways until either has ended, and what it sent is delivered; then both are closed."""
    copies = [asyncio.create_task(copy(one, other)), asyncio.create_task(copy(other, one))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in copies:
            task.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        one.close()
        other.close()


async def copy(source: Duplex, sink: Duplex) -> None:
    """Until `source` ends or `sink` is gone."""
    with suppress(OSError):
        while data := await source.read():
            await sink.write(data)


class Head(msgspec.Struct, frozen=True):
    """The beginning of an answer: `raw` as it came, with the empty line."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    raw: bytes

    def final(self) -> bytes:
        """For who gets this answer instead of an upgrade: the connection is of no use afterwards."""
        if self.status == 101:
            return self.raw
        first, *lines = self.raw.rstrip(b"\r\n").split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() not in (b"connection", b"keep-alive")]
        return b"\r\n".join([first, *kept, b"Connection: close", b"", b""])


async def ask(
    host: str, port: int, tls: ssl.SSLContext | None, method: str, target: str, headers: Iterable[tuple[str, str]]
) -> tuple[Head, Wire]:
    """A connection of its own for one request; the answer's head, and the bytes after it.

    Raises OSError (also for an answer that isn't HTTP). `target` is a path with its query, quoted.
    """
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=BLOCK)
    except ValueError as error:
        raise OSError(f"{host}:{port}: {error}") from error
    try:
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        writer.write("\r\n".join(lines).encode("utf-8", "surrogateescape"))
        await writer.drain()
        while (head := parse_head(await reader.readuntil(b"\r\n\r\n"))).status in (100, 102, 103):
            pass
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        writer.close()
        raise OSError(f"{host}:{port} doesn't answer in HTTP: {error}") from error
    except BaseException:
        writer.close()
        raise
    return head, Wire(reader, writer)


def parse_head(raw: bytes) -> Head:
    """Raises ValueError."""
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    protocol, _, rest = first.partition(" ")
    if not protocol.startswith("HTTP/1."):
        raise ValueError(f"not HTTP/1: {first[:60]!r}")
    pairs = (line.partition(":") for line in lines)
    return Head(int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}, raw)


def end_to_end(headers: Iterable[tuple[str, str]], *, upgrade: bool = False) -> list[tuple[str, str]]:
    """The headers that a proxy passes on: not those about one connection, except what an upgrade needs."""
    pairs = list(headers)
    named = {word.strip().lower() for name, value in pairs if name.lower() == "connection" for word in value.split(",")}
    dropped = HOP_BY_HOP | named
    kept = [(name, value) for name, value in pairs if name.lower() not in dropped]
    if upgrade:
        kept += [(name, value) for name, value in pairs if name.lower() in ("upgrade", "connection")]
    return kept


def wants_upgrade(headers: Mapping[str, str]) -> bool:
    """Whether a request (its header names in lower case, or looked up without regard to case) asks for one."""
    words = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    return "upgrade" in words and bool(headers.get("upgrade"))
