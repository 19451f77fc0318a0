"""Taking over the connection of a request from aiohttp's server: after an upgrade, its bytes are somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from kubesvc.client.tunnel import BLOCK, Duplex, Wire


class _Taken(web.StreamResponse):
    """What the handler returns afterwards: there is nothing left to answer."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _Protocol(asyncio.StreamReaderProtocol):
    lost: bool = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        super().connection_lost(exc)


async def take_over(
    request: web.BaseRequest, head: bytes, run: Callable[[Duplex], Awaitable[None]]
) -> web.StreamResponse:
    """Send `head` (a status line and headers) and give the connection to `run` until it returns.

    A client that goes away ends what `run` reads; `run` is not cancelled for it, so what came before is not lost.
    Raises ConnectionResetError when the client has gone already; `run` is not called then.
    """
    transport, server = request.transport, request.protocol
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=BLOCK, loop=loop)
    protocol = _Protocol(reader, loop=loop)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if not transport.is_reading():
        transport.resume_reading()
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        writer.write(head)
        await run(Wire(reader, writer))
    finally:
        if protocol.lost:
            server.connection_lost(None)
        else:
            transport.set_protocol(server)
            transport.close()
    taken = _Taken(status=101)
    taken.force_close()
    return taken


def switching(protocol: str, headers: dict[str, Any]) -> bytes:
    """The head of an answer that agrees to an upgrade."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {protocol}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
