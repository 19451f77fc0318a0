"""What every request goes through before its verb: recover, authenticate, collect warnings, find the verb.

Who asks is set by the transport: from a client certificate's CN and O, or by a LocalTransport. Nobody else gets
further than health and version.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from kubesvc.api.errors import ApiError, InternalError, MethodNotAllowed, NotFound, ServiceUnavailable, Unauthorized
from kubesvc.apiserver import discovery, encode, health, openapi, openapi_protobuf, warnings
from kubesvc.apiserver.create import create
from kubesvc.apiserver.delete import delete
from kubesvc.apiserver.deletecollection import deletecollection
from kubesvc.apiserver.get import get
from kubesvc.apiserver.list import list_
from kubesvc.apiserver.patching import patching
from kubesvc.apiserver.routing import Target, resolve
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources import binding, exec, finalize, proxy, scale
from kubesvc.apiserver.subresources import log as log_of
from kubesvc.apiserver.update import update
from kubesvc.apiserver.watch import watch
from kubesvc.client.transport import Handler, Request, Response
from kubesvc.store.protocol import StoreError, Unwritable

log = logging.getLogger(__name__)

Verb = Callable[[State, Request, Target], Awaitable[Response]]

# method -> the verb on an object
_OBJECT: dict[str, Verb] = {"GET": get, "PUT": update, "PATCH": patching, "DELETE": delete}
# method -> the verb on a collection
_COLLECTION: dict[str, Verb] = {"GET": list_, "POST": create, "DELETE": deletecollection}
# subresource -> method -> the verb
_SUBRESOURCE: dict[str, dict[str, Verb]] = {
    "scale": {"GET": scale.get, "PUT": scale.update, "PATCH": scale.patching},
    "binding": {"POST": binding.create},
    "finalize": {"PUT": finalize.update},
    "log": {"GET": log_of.get},
    "exec": {"GET": exec.connect, "POST": exec.connect},
    "attach": {"GET": exec.connect, "POST": exec.connect},
    "portforward": {"GET": exec.port_forward, "POST": exec.port_forward},
    "proxy": dict.fromkeys(proxy.METHODS, proxy.connect),
}


def chain(state: State) -> Handler:
    """The whole handler: what a listener or a LocalTransport calls."""

    async def handle(request: Request) -> Response:
        with warnings.collecting() as texts:
            response = await _recovered(state, request)
        if texts:
            response.headers["Warning"] = warnings.header(texts)
        return response

    return handle


async def _recovered(state: State, request: Request) -> Response:
    """The answer; every failure is one too."""
    try:
        return await _answer(state, request)
    except ApiError as error:
        return encode.failure(error)
    except StoreError as error:
        log.error("%s %s: %s", request.method, request.path, error)
        lasting = isinstance(error, Unwritable)  # until somebody does something: trying again at once is no use
        message = f"the store didn't take it: {error}"
        return encode.failure(ServiceUnavailable(message, retry_after=None if lasting else 1))
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        return encode.failure(InternalError(f"Internal error occurred: {error}"))


async def _answer(state: State, request: Request) -> Response:
    if request.path in health.OPEN:
        return await health.answer(state, request)
    if request.user is None:
        raise Unauthorized("Unauthorized")
    target = resolve(request.path)
    if target is None:
        found = document(request) if request.method == "GET" else None
        if found is None:
            raise NotFound("the server could not find the requested resource")
        return found
    return await verb(request, target)(state, request, target)


def document(request: Request) -> Response | None:
    """What is at a path that names no resource: discovery or OpenAPI; None where nothing is."""
    path = request.path.rstrip("/")
    match path:
        case "/openapi/v2":
            return _openapi_v2(request)
        case "/openapi/v3":
            return Response(200, openapi.v3_index())
    if path.startswith("/openapi/v3/"):
        body = openapi.v3(path.removeprefix("/openapi/v3/"))
        return None if body is None else Response(200, body)
    return discovery.answer(request)


def _openapi_v2(request: Request) -> Response:
    """As protobuf where that is asked for before JSON is. Raises NotAcceptable."""
    for part in request.headers.get("accept", "").split(","):
        media = part.partition(";")[0].strip()
        if media in openapi_protobuf.ACCEPTED:
            return Response(200, openapi_protobuf.v2(), content_type=openapi_protobuf.MEDIA_TYPE)
        if media == "application/json":
            break
    encode.representation(request)
    return Response(200, openapi.v2())


def verb(request: Request, target: Target) -> Verb:
    """Raises MethodNotAllowed, NotFound for a subresource nobody serves."""
    method = request.method
    if target.subresource not in ("", "status"):
        methods = _SUBRESOURCE.get(target.subresource)
        if methods is None:
            raise NotFound("the server could not find the requested resource")
        if method not in methods:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        return methods[method]
    if method == "GET" and not target.name and request.query.get("watch") in ("1", "true"):
        return watch
    found = (_OBJECT if target.name else _COLLECTION).get(method)
    if found is None or (target.subresource == "status" and method == "DELETE"):
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    return found
