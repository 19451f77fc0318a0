"""Who runs a command or attaches: stdin, stdout, stderr, the error channel and the terminal's size, over a WebSocket
(KEP-4006) or over SPDY, which is how older clients and fallbacks come.

    WebSocket   one frame a message, see channels.py          SPDY   a stream each, opened by the client, named by the
                                                                     header streamType; the reply v4.channel.k8s.io
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import msgspec
from aiohttp import WSMsgType, web

from kubesvc.api.errors import BadRequest
from kubesvc.client.takeover import switching, take_over
from kubesvc.client.tunnel import Duplex, wants_upgrade
from kubesvc.node import channels
from kubesvc.node.channels import EndOfInput, Input, Resize
from kubesvc.node.spdy.frames import SpdyError
from kubesvc.node.spdy.streams import Connection, Stream

log = logging.getLogger(__name__)

SPDY = "SPDY/3.1"
SPDY_PROTOCOL = "v4.channel.k8s.io"
STREAMS_WITHIN = 30.0  # seconds for a SPDY client to open its streams
GOODBYE = 5.0  # seconds for what was sent last to get away


class Wanted(msgspec.Struct, frozen=True):
    """Which channels the client asked for."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class Client(Protocol):
    gone: bool
    sent: int  # frames: to see whether output moves
    sending: bool

    async def receive(self) -> Input | EndOfInput | Resize | None:
        """None: the client has gone."""
        ...

    async def send(self, channel: int, data: bytes) -> None:
        """Returns when it is on its way; nothing to a client that has gone."""
        ...


Work = Callable[[Client], Awaitable[bytes]]  # does what was asked for; the final status


async def serve(request: web.Request, wanted: Wanted, work: Work) -> web.StreamResponse:
    """Agree to what the client speaks and do `work` with it. Raises BadRequest where it is neither."""
    if not wants_upgrade(request.headers):
        raise BadRequest("Upgrade request required")
    if request.headers["upgrade"].lower() == "websocket":
        return await _websocket(request, work)
    if request.headers["upgrade"].lower() != SPDY.lower():
        raise BadRequest(f"unable to upgrade: {request.headers['upgrade']} is neither websocket nor {SPDY}")
    if SPDY_PROTOCOL not in offered(request):
        raise BadRequest(f"unable to upgrade: of the stream protocols only {SPDY_PROTOCOL} is spoken over SPDY")

    async def run(wire: Duplex) -> None:
        await _spdy(wire, wanted, work)

    return await take_over(request, switching(SPDY, {"X-Stream-Protocol-Version": SPDY_PROTOCOL}), run)


def offered(request: web.Request) -> list[str]:
    """The stream protocols a SPDY client offers."""
    values = request.headers.getall("X-Stream-Protocol-Version", [])
    return [word.strip() for value in values for word in value.split(",")]


# ── WebSocket ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _WebSocketClient:
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self.gone = False
        self.sent = 0
        self.sending = False

    async def receive(self) -> Input | EndOfInput | Resize | None:
        async for message in self._socket:
            if message.type is WSMsgType.BINARY and (asked := channels.parse(message.data)) is not None:
                return asked
        self.gone = True
        return None

    async def send(self, channel: int, data: bytes) -> None:
        if self._socket.closed:
            return
        self.sending = True
        try:
            with suppress(ConnectionError):
                await self._socket.send_bytes(bytes([channel]) + data)
        finally:
            self.sending = False
            self.sent += 1


async def _websocket(request: web.Request, work: Work) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=channels.PROTOCOLS, max_msg_size=0, heartbeat=30.0, timeout=GOODBYE)
    if not socket.can_prepare(request).protocol:
        raise BadRequest(f"unable to upgrade: a WebSocket with subprotocol {' or '.join(channels.PROTOCOLS)} is needed")
    await socket.prepare(request)
    client = _WebSocketClient(socket)
    # Tells the client that it is connected, as upstream does.
    await client.send(channels.STDOUT, b"")
    status = await work(client)
    await client.send(channels.ERROR, status)
    await socket.close()
    return socket


# ── SPDY ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_CHANNELS = {channels.STDOUT: "stdout", channels.STDERR: "stderr", channels.ERROR: "error"}


class _SpdyClient:
    """`streams` are by streamType; stdin and resize are read by tasks of their own, one piece ahead."""

    def __init__(self, streams: dict[str, Stream]) -> None:
        self._streams = streams
        self._asked: asyncio.Queue[Input | EndOfInput | Resize | None] = asyncio.Queue(1)
        self.gone = False
        self.sent = 0
        self.sending = False

    async def read(self) -> None:
        """Read what comes until both inputs end."""
        await asyncio.gather(self._stdin(), self._resizes())

    async def _stdin(self) -> None:
        if (stream := self._streams.get("stdin")) is not None:
            while data := await stream.read():
                await self._asked.put(Input(data))
            await self._asked.put(EndOfInput())

    async def _resizes(self) -> None:
        if (stream := self._streams.get("resize")) is not None:
            while data := await stream.read():
                for text in data.split(b"\n"):  # one JSON document a line
                    if isinstance(resize := channels.parse(bytes([channels.RESIZE]) + text), Resize):
                        await self._asked.put(resize)

    async def leave(self) -> None:
        self.gone = True
        await self._asked.put(None)

    async def receive(self) -> Input | EndOfInput | Resize | None:
        return None if self.gone and self._asked.empty() else await self._asked.get()

    async def send(self, channel: int, data: bytes) -> None:
        stream = self._streams.get(_CHANNELS[channel])
        if stream is None or not data:
            return
        self.sending = True
        try:
            with suppress(ConnectionError):
                await stream.write(data)
        finally:
            self.sending = False
            self.sent += 1


async def _spdy(wire: Duplex, wanted: Wanted, work: Work) -> None:
    names = {"error": True, "stdin": wanted.stdin, "stdout": wanted.stdout}
    names |= {"stderr": wanted.stderr and not wanted.tty, "resize": wanted.tty}
    streams: dict[str, Stream] = {}
    complete = asyncio.Event()

    def opened(stream: Stream) -> None:
        streams.setdefault(stream.headers.get("streamtype", ""), stream)
        if all(name in streams for name, needed in names.items() if needed):
            complete.set()

    connection = Connection(wire, opened)
    running = asyncio.create_task(connection.run())
    tasks: list[asyncio.Task[None]] = [running]
    try:
        ready = asyncio.create_task(complete.wait())
        await asyncio.wait((ready, running), timeout=STREAMS_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not complete.is_set():
            return
        client = _SpdyClient(streams)
        tasks += [asyncio.create_task(client.read()), asyncio.create_task(_leaving(running, client))]
        status = await work(client)
        await client.send(channels.ERROR, status)
        for stream in streams.values():
            stream.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await connection.flush()
                await asyncio.wait((running,))  # the client closes; closing first could cut off what it hasn't read
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, SpdyError):
                log.info("a SPDY client: %s", result)
        wire.close()


async def _leaving(running: asyncio.Task[None], client: _SpdyClient) -> None:
    await asyncio.wait((running,))
    await client.leave()
