"""pods/NAME/proxy, services/NAME/proxy and nodes/NAME/proxy: a request passed on, its answer passed back.

    client ──► API server ──► node's agent /proxy/SCHEME/ADDRESS/PORT/… ──► the pod

Through the agent, because that is who reaches pods: the server itself need not be on any node's network. Bodies are
streamed both ways; an upgrade becomes a pair of joined connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import BadRequest, NotFound, ServiceUnavailable
from kubesvc.api.nodes import Node
from kubesvc.api.registry import ENDPOINT_SLICE, NODE, POD
from kubesvc.apiserver import stored
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources import connecting, destination
from kubesvc.apiserver.subresources.containers import read_node, read_pod
from kubesvc.apiserver.subresources.destination import Destination
from kubesvc.client.transport import Request, Response
from kubesvc.client.tunnel import end_to_end, wants_upgrade

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_KEPT_HERE = ("authorization",)  # the caller's credentials are for this server, not for a pod


async def connect(state: State, request: Request, target: Target) -> Response:
    """Raises NotFound, BadRequest, ServiceUnavailable without endpoints, InternalError when the node is silent."""
    prefix, rest = _split(request, target)
    query = f"?{request.raw_query}" if request.raw_query else ""
    if rest is None and request.method in ("GET", "HEAD"):
        return Response(301, headers={"Location": f"{prefix}/{query}"}, content_type="text/plain")
    asked = await connecting.admitted_path(state, target, f"/{rest}" if rest is not None else "")
    rest = asked.removeprefix("/")
    node, begins = await _find(state, target)
    path = f"{begins}/{rest}{query}"
    upgrade = wants_upgrade(request.headers)
    headers = [
        (name, value)
        for name, value in end_to_end(request.headers.items(), upgrade=upgrade)
        if name not in _KEPT_HERE and not (upgrade and name == "host")
    ]
    if host := request.headers.get("host"):
        headers += [("X-Forwarded-Host", host), ("X-Forwarded-Uri", f"{prefix}/{rest}")]
    headers.append(("X-Forwarded-Proto", "https"))
    if upgrade:
        return await state.nodes.upgrade(node, request.method, path, headers)
    answer = await state.nodes.forward(node, request.method, path, headers, request.content)
    return _passed_back(answer, prefix)


def _split(request: Request, target: Target) -> tuple[str, str | None]:
    """The path up to /proxy, and what comes after its slash as it was written; None where there is no slash."""
    parts = (request.raw_path or quote(request.path)).split("/")
    length = 8 if target.kind.namespaced else 6
    if parts[length - 1 : length] != ["proxy"]:
        raise NotFound("the server could not find the requested resource")
    return "/".join(parts[:length]), "/".join(parts[length:]) if len(parts) > length else None


async def _find(state: State, target: Target) -> tuple[Node, str]:
    """The node whose agent is asked, and the beginning of the path there."""
    wanted = destination.parse(target.kind.singular, target.name)
    named = Target(target.kind, target.namespace, wanted.name)
    if target.kind is NODE:
        node = await read_node(state, wanted.name)
        port = wanted.port or str(node.status.daemon_endpoints.kubelet_endpoint.port)
        if not port.isdigit():
            raise BadRequest(f'invalid node request "{target.name}"')
        if int(port) == node.status.daemon_endpoints.kubelet_endpoint.port:
            return node, ""
        if not node.internal_ips:
            raise BadRequest(f"no preferred addresses found; node {node.name} has no InternalIP")
        return node, Destination(wanted.scheme, node.internal_ips[0], int(port), node.name).path
    if target.kind is POD:
        found = destination.of_pod(wanted, await read_pod(state, named))
    else:
        service = msgspec.json.decode((await state.read(named)).value, type=Service)
        slices = await slices_of(state, target.namespace, wanted.name)
        found = destination.of_service(wanted, service, slices, state.random.randrange)
    return await _agent(state, found.node), found.path


async def slices_of(state: State, namespace: str, service: str) -> list[EndpointSlice]:
    """Those of one Service."""
    page = await state.store.list(stored.collection(ENDPOINT_SLICE, namespace))
    label = f'"{service}"'.encode()  # most slices of a namespace are others': don't decode them
    found = [msgspec.json.decode(item.value, type=EndpointSlice) for item in page.items if label in item.value]
    return [slice_ for slice_ in found if slice_.service_name == service]


async def _agent(state: State, name: str) -> Node:
    """The node `name`; for an endpoint that is on none, any that is ready."""
    if name:
        return await read_node(state, name)
    page = await state.store.list(stored.collection(NODE))
    nodes = [msgspec.json.decode(item.value, type=Node) for item in page.items]
    ready = [node for node in nodes if node.ready]
    if not ready:
        raise ServiceUnavailable("no node is ready to proxy through")
    return ready[state.random.randrange(len(ready))]


def _passed_back(answer: aiohttp.ClientResponse, prefix: str) -> Response:
    headers: dict[str, str] = {}
    for name, value in end_to_end(answer.headers.items()):
        if name.lower() not in ("set-cookie", "content-type"):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "Location" in headers:
        headers["Location"] = _relocated(headers["Location"], prefix, answer)
    return Response(
        answer.status,
        headers=headers,
        stream=_chunks(answer),
        content_type=answer.headers.get("Content-Type", ""),
        cookies=tuple(answer.headers.getall("Set-Cookie", ())),
    )


def _relocated(location: str, prefix: str, answer: aiohttp.ClientResponse) -> str:
    """A redirect within the pod stays behind the proxy; one to elsewhere goes there."""
    url = urlsplit(location)
    own = answer.request_info.headers.get("Host", "")
    if (url.netloc and url.netloc != own) or not url.path.startswith("/"):
        return location
    return prefix + url.path + (f"?{url.query}" if url.query else "") + (f"#{url.fragment}" if url.fragment else "")


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk
