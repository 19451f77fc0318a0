"""pods/NAME/exec and /attach: a WebSocket to the client joined to one to the container's node.

    kubectl ◄──WebSocket──► API server ◄──WebSocket──► node /exec/NAMESPACE/POD/CONTAINER?command=…
                  frames, and the close, copied both ways unread; the same subprotocol on both sides

The node is asked first, so that its refusal is an ordinary Status. SPDY, the older way, is not served: kubectl tries
it after a refused WebSocket, and then gets to see why.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl, urlencode

import aiohttp

from kubesvc.api.errors import BadRequest
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources.containers import locate, refuse_not_running
from kubesvc.client.transport import Request, Response, Upgrade, WebSocket

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_PASSED_ON = ("command", "stdin", "stdout", "stderr", "tty")


async def connect(state: State, request: Request, target: Target) -> Response:
    """101 with an upgrade. Raises BadRequest when the container doesn't run or the client speaks no WebSocket."""
    place = await locate(state, target, request.query.get("container", ""))
    refuse_not_running(place)
    offered = [p.strip() for p in request.headers.get("sec-websocket-protocol", "").split(",")]
    protocols = [protocol for protocol in offered if protocol in PROTOCOLS]
    if request.headers.get("upgrade", "").lower() != "websocket" or not protocols:
        await state.nodes.reach(place.node)  # where the WebSocket failed because of the node, this says so
        raise BadRequest(f"Upgrade request required: a WebSocket with subprotocol {' or '.join(PROTOCOLS)}")
    pairs = parse_qsl(request.raw_query, keep_blank_values=True) or list(request.query.items())
    query = urlencode([(name, value) for name, value in pairs if name in _PASSED_ON])
    node = await state.nodes.websocket(place.node, f"/{target.subresource}/{place.path}?{query}", protocols)

    async def run(client: WebSocket) -> None:
        await join(client, node)

    async def abandon() -> None:
        await node.close()

    return Response(101, upgrade=Upgrade(node.protocol or protocols[0], run, abandon))


async def join(one: WebSocket, other: WebSocket) -> None:
    """Copy between two sockets until either is closed; then both are."""
    copies = [asyncio.create_task(_copy(one, other)), asyncio.create_task(_copy(other, one))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        await asyncio.gather(one.close(), other.close(), return_exceptions=True)


async def _copy(source: WebSocket, sink: WebSocket) -> None:
    while True:
        message = await source.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        else:  # closed, in order or not
            await sink.close(code=source.close_code or 1000, message=_reason(message))
            return


def _reason(message: aiohttp.WSMessage) -> bytes:
    return str(message.extra or "").encode() if message.type is aiohttp.WSMsgType.CLOSE else b""
