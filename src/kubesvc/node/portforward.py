"""Port forwarding: streams of SPDY, each pair joined to a port of 127.0.0.1 inside the pod.

kubectl ◄─ WebSocket, subprotocol SPDY/3.1+portforward.k8s.io; or SPDY/3.1 itself ─► here ──► 127.0.0.1:PORT
   for each connection two streams with the same requestID: data, and error for what went wrong
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from pathlib import Path

import msgspec
from aiohttp import WSMsgType, web

from kubesvc.api.errors import BadRequest
from kubesvc.client.takeover import switching, take_over
from kubesvc.client.tunnel import BLOCK, Duplex, Wire, copy, wants_upgrade
from kubesvc.kernel import netns
from kubesvc.node.clients import GOODBYE, SPDY, offered
from kubesvc.node.spdy.frames import CANCEL, PROTOCOL_ERROR, SpdyError
from kubesvc.node.spdy.streams import Connection, Stream

log = logging.getLogger(__name__)

PROTOCOL = "portforward.k8s.io"
TUNNELLED = f"{SPDY}+{PROTOCOL}"
CONNECT_SECONDS = 10.0


class Inside(msgspec.Struct, frozen=True):
    """Where connections are made: a pod's network namespace (None: the node's own), and what messages call it."""

    namespace: Path | None
    pod: str
    uid: str


async def serve(request: web.Request, inside: Inside) -> web.StreamResponse:
    """Raises BadRequest for a client that speaks neither."""
    if not wants_upgrade(request.headers):
        raise BadRequest("Upgrade request required")
    if request.headers["upgrade"].lower() == "websocket":
        tunnel = web.WebSocketResponse(protocols=(TUNNELLED,), max_msg_size=0, heartbeat=30.0, timeout=GOODBYE)
        if not tunnel.can_prepare(request).protocol:
            raise BadRequest(f"unable to upgrade: a WebSocket with subprotocol {TUNNELLED} is needed")
        await tunnel.prepare(request)
        await forward(_Tunnel(tunnel), inside)
        await tunnel.close()
        return tunnel
    if request.headers["upgrade"].lower() != SPDY.lower() or PROTOCOL not in offered(request):
        raise BadRequest(f"unable to upgrade: stream protocol {PROTOCOL} over {SPDY} is needed")

    async def run(wire: Duplex) -> None:
        await forward(wire, inside)

    return await take_over(request, switching(SPDY, {"X-Stream-Protocol-Version": PROTOCOL}), run)


class _Tunnel:
    """A WebSocket as a Duplex: bytes, however they are cut into messages."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        async for message in self._socket:
            if message.type is WSMsgType.BINARY and message.data:
                return bytes(message.data)
        return b""

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    def finish(self) -> None:
        return None

    def close(self) -> None:
        return None  # whoever has the socket waits for its goodbye


async def forward(wire: Duplex, inside: Inside) -> None:
    """Serve streams until the client goes; then every connection into the pod is closed."""
    pairs: dict[tuple[str, str], dict[str, Stream]] = {}  # (requestID, port) -> streamType -> stream
    work: set[asyncio.Task[None]] = set()

    def opened(stream: Stream) -> None:
        port, kind = stream.headers.get("port", ""), stream.headers.get("streamtype", "")
        if kind not in ("data", "error") or not port.isdigit() or not 0 < int(port) < 65536:
            stream.reset(PROTOCOL_ERROR)
            return
        key = (stream.headers.get("requestid", ""), port)
        pair = pairs.setdefault(key, {})
        pair[kind] = stream
        if len(pair) == 2:
            del pairs[key]
            task = asyncio.create_task(_connection(inside, int(port), pair["data"], pair["error"]))
            work.add(task)
            task.add_done_callback(work.discard)

    connection = Connection(wire, opened)
    try:
        await connection.run()
    except SpdyError as error:
        log.info("port-forward to %s: %s", inside.pod, error)
    finally:
        for task in list(work):
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        wire.close()


async def _connection(inside: Inside, port: int, data: Stream, error: Stream) -> None:
    """One connection into the pod, for as long as both sides want it."""
    try:
        try:
            pod = await connect(inside.namespace, port)
        except (OSError, TimeoutError) as failure:
            text = (
                f"error forwarding port {port} to pod {inside.pod}, uid {inside.uid}: failed to connect to "
                f"127.0.0.1:{port} inside the pod: {failure or 'timed out'}"
            )
            with suppress(ConnectionError):
                await error.write(text.encode())
            return
        try:
            await _exchange(data, pod)
        finally:
            pod.close()
    finally:
        error.finish()
        data.finish()
        if not data.ended:
            data.reset(CANCEL)


async def _exchange(data: Stream, pod: Wire) -> None:
    """Each side may end what it says and go on listening; when the pod has ended, it is over."""

    async def to_pod() -> None:
        await copy(data, pod)
        if data.gone:
            pod.close()
        else:
            pod.finish()

    sending = asyncio.create_task(to_pod())
    try:
        await copy(pod, data)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def connect(namespace: Path | None, port: int) -> Wire:
    """To localhost in a namespace, as containerd does it: 127.0.0.1, else ::1. Raises OSError, TimeoutError."""
    try:
        return await _connect(namespace, socket.AF_INET, "127.0.0.1", port)
    except ConnectionRefusedError as refused:
        try:
            return await _connect(namespace, socket.AF_INET6, "::1", port)
        except OSError:
            raise refused from None


async def _connect(namespace: Path | None, family: int, address: str, port: int) -> Wire:
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    made = socket.socket(family, kind) if namespace is None else netns.socket_in(namespace, family, kind)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
            reader, writer = await asyncio.open_connection(sock=made, limit=BLOCK)
    except BaseException:
        made.close()
        raise
    return Wire(reader, writer)
