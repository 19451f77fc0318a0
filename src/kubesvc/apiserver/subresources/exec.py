"""pods/NAME/exec, /attach and /portforward: the client's connection joined to one to the pod's node.

    kubectl ◄──TLS──► API server ◄──TLS──► node /exec/NAMESPACE/POD/CONTAINER?command=…
       WebSocket or SPDY, agreed between kubectl and the node; the bytes are copied both ways unread

The node is asked first, so that its refusal is an ordinary answer with a Status, whichever way the client came.
"""

from __future__ import annotations

from urllib.parse import urlencode

from kubesvc.api.errors import BadRequest
from kubesvc.api.nodes import Node
from kubesvc.apiserver.nodes import refusal
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources import connecting
from kubesvc.apiserver.subresources.containers import locate, node_of, read_pod, refuse_not_running
from kubesvc.client.transport import Request, Response
from kubesvc.client.tunnel import wants_upgrade

_PASSED_ON = ("command", "stdin", "stdout", "stderr", "tty", "ports")
_HEADERS = ("connection", "upgrade", "x-stream-protocol-version")


async def connect(state: State, request: Request, target: Target) -> Response:
    """exec and attach. Raises BadRequest when the container doesn't run or the client asks for no upgrade."""
    request = await connecting.admitted(state, request, target)
    place = await locate(state, target, request.query.get("container", ""))
    refuse_not_running(place, target.subresource)
    return await _ask(state, request, place.node, f"/{target.subresource}/{place.path}")


async def port_forward(state: State, request: Request, target: Target) -> Response:
    """Raises BadRequest when the pod doesn't run or the client asks for no upgrade."""
    request = await connecting.admitted(state, request, target)
    pod = await read_pod(state, target)
    node = await node_of(state, pod)
    if pod.status.phase != "Running":
        phase = pod.status.phase or "Pending"
        raise BadRequest(f"unable to forward port because pod is not running. Current status={phase}")
    return await _ask(state, request, node, f"/portForward/{pod.namespace}/{pod.name}")


async def _ask(state: State, request: Request, node: Node, path: str) -> Response:
    """Raises what the node refuses with, as an ApiError."""
    answer = await state.nodes.upgrade(node, request.method, f"{path}?{_query(request)}", _headers(request))
    if answer.upgrade is None:
        raise refusal(answer.status, answer.body)
    return answer


def _query(request: Request) -> str:
    return urlencode([(name, value) for name, value in connecting.pairs(request) if name in _PASSED_ON])


def _headers(request: Request) -> list[tuple[str, str]]:
    """What an upgrade needs. Raises BadRequest where there is none."""
    if not wants_upgrade(request.headers):
        raise BadRequest("Upgrade request required")
    return [
        (name, value)
        for name, value in request.headers.items()
        if name in _HEADERS or name.startswith("sec-websocket-")
    ]
