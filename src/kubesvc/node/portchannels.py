"""Port forwarding over the channels of a WebSocket, as the Python clients ask for it (v4.channel.k8s.io).

    ?ports=80,8080    frame = channel, payload      2i   data of the i-th port      2i+1 what went wrong with it
                      each channel's first frame is its port, two bytes, the lower first

One connection a port. Source: pkg/kubelet/cri/streaming/portforward/websocket.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import WSMsgType, web

from kubesvc.api.errors import BadRequest
from kubesvc.client.tunnel import Wire
from kubesvc.node.clients import GOODBYE
from kubesvc.node.portforward import TUNNELLED, Inside, connect

PROTOCOLS = ("v4.channel.k8s.io",)
_MOST_PORTS = 64


def ports_of(values: Sequence[str]) -> list[int]:
    """The ports of a query, given once or several times. Raises BadRequest."""
    texts = [text for value in values for text in value.split(",")]
    if not texts or len(texts) > _MOST_PORTS:
        raise BadRequest(f'query parameter "ports" is required: between 1 and {_MOST_PORTS} of them')
    if bad := [text for text in texts if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536)]:
        raise BadRequest(f'query parameter "ports" has {bad[0]!r}: must be a port, from 1 to 65535')
    return [int(text) for text in texts]


def wanted(request: web.Request) -> bool:
    """Whether the client speaks this, or names no protocol, which means the same, and not the way of `portforward`."""
    if request.headers.get("upgrade", "").lower() != "websocket":
        return False
    offered = request.headers.get("sec-websocket-protocol", "")
    return TUNNELLED not in offered and (not offered or any(protocol in offered for protocol in PROTOCOLS))


async def serve(request: web.Request, inside: Inside) -> web.StreamResponse:
    """Raises BadRequest for ports that are none."""
    ports = ports_of(request.query.getall("ports", []))
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=0, heartbeat=30.0, timeout=GOODBYE)
    await socket.prepare(request)
    try:
        await forward(socket, ports, inside)
    except ConnectionError:  # the client has gone
        pass
    await socket.close()
    return socket


async def forward(socket: web.WebSocketResponse, ports: Sequence[int], inside: Inside) -> None:
    """Serve all ports until the client goes, or every connection has ended."""
    wires: dict[int, Wire] = {}  # channel -> the connection into the pod
    work: list[asyncio.Task[None]] = []
    try:
        for index, port in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
            try:
                wires[2 * index] = await connect(inside.namespace, port)
            except (OSError, TimeoutError) as failure:
                why = f"error forwarding port {port} to pod {inside.pod}, uid {inside.uid}: {failure or 'timed out'}"
                await socket.send_bytes(bytes([2 * index + 1]) + why.encode())
        work = [asyncio.create_task(_to_client(socket, channel, wire)) for channel, wire in wires.items()]
        ended = asyncio.gather(*work)
        reading = asyncio.create_task(_from_client(socket, wires))
        work.append(reading)
        until: list[asyncio.Future[Any]] = [reading, ended] if wires else [reading]
        await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        for wire in wires.values():
            wire.close()


async def _to_client(socket: web.WebSocketResponse, channel: int, wire: Wire) -> None:
    while data := await wire.read():
        await socket.send_bytes(bytes([channel]) + data)


async def _from_client(socket: web.WebSocketResponse, wires: dict[int, Wire]) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY and len(message.data) > 1 and (wire := wires.get(message.data[0])):
            await wire.write(bytes(message.data[1:]))
