"""What every request goes through before its verb: recover, authenticate, collect warnings, find the verb.

Who asks is set by the transport: from a client certificate's CN and O or a bearer token, or by a LocalTransport. Nobody
else gets further than health and version.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial

from kubesvc.api.errors import (
    ApiError,
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotFound,
    ServiceUnavailable,
    Unauthorized,
)
from kubesvc.apiserver import conditional, discovery, encode, health, metrics, openapi_protobuf, warnings
from kubesvc.apiserver.access import check, reviews
from kubesvc.apiserver.access.asking import asking
from kubesvc.apiserver.authentication import oidc
from kubesvc.apiserver.create import create
from kubesvc.apiserver.delete import delete
from kubesvc.apiserver.deletecollection import deletecollection
from kubesvc.apiserver.get import get
from kubesvc.apiserver.list import list_
from kubesvc.apiserver.patching import patching
from kubesvc.apiserver.routing import Target, is_true, of_old, resolve
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources import binding, eviction, exec, finalize, proxy, scale, token
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
    "approval": {"GET": get, "PUT": update, "PATCH": patching},
    "ephemeralcontainers": {"GET": get, "PUT": update, "PATCH": patching},
    "eviction": {"POST": eviction.create},
    "finalize": {"PUT": finalize.update},
    "log": {"GET": log_of.get},
    "token": {"POST": token.create},
    "exec": {"GET": exec.connect, "POST": exec.connect},
    "attach": {"GET": exec.connect, "POST": exec.connect},
    "portforward": {"GET": exec.port_forward, "POST": exec.port_forward},
    "proxy": dict.fromkeys(proxy.METHODS, proxy.connect),
}


def chain(state: State) -> Handler:
    """The whole handler: what a listener or a LocalTransport calls."""

    async def handle(request: Request) -> Response:
        if "/watch/" in request.path:
            request = of_old(request)
        began, kind = time.perf_counter(), state.metrics.started(request)
        target = resolve(request.path) or _custom(state, request.path)
        with warnings.Collecting() as texts:
            if target is not None and target.kind.deprecated:
                texts.append(target.kind.deprecated)
            try:
                if state.auditor is None:
                    response = await _recovered(state, request, target)
                else:
                    response = await state.auditor.around(partial(_answered, state, target), request, target)
            finally:
                state.metrics.ended(kind)
        if texts:
            response.headers["Warning"] = warnings.header(texts)
        state.metrics.answered(request, target, response, time.perf_counter() - began)
        if response.stream is not None and target is not None and not target.name:
            response.stream = _counted(state, request, target, response.stream)
        return await conditional.packed(request, response)

    return handle


def _custom(state: State, path: str) -> Target | None:
    return resolve(path, state.kinds.find) if state.kinds.served and path.startswith("/apis/") else None


async def _answered(state: State, target: Target | None, request: Request) -> Response:
    return await _recovered(state, request, target)


async def _counted(
    state: State, request: Request, target: Target, stream: AsyncIterator[bytes]
) -> AsyncGenerator[bytes]:
    """The lines of a watch, which is counted as long as somebody reads them."""
    state.metrics.watching(request, target, 1)
    try:
        async for line in stream:
            yield line
    finally:
        state.metrics.watching(request, target, -1)
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def _recovered(state: State, request: Request, target: Target | None) -> Response:
    """The answer; every failure is one too."""
    try:
        return await _answer(state, request, target)
    except ApiError as error:
        return encode.failure(error)
    except RecursionError:
        return encode.failure(BadRequest("the request is nested too deeply"))
    except UnicodeEncodeError as error:  # half of a surrogate pair, which an escape can say and nobody can write
        return encode.failure(BadRequest(f"the request has text that is no Unicode: {error}"))
    except StoreError as error:
        log.error("%s %s: %s", request.method, request.path, error)
        lasting = isinstance(error, Unwritable)  # until somebody does something: trying again at once is no use
        message = f"the store didn't take it: {error}"
        return encode.failure(ServiceUnavailable(message, retry_after=None if lasting else 1))
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        return encode.failure(InternalError(f"Internal error occurred: {error}"))


async def _answer(state: State, request: Request, target: Target | None) -> Response:
    if health.is_open(request.path):
        return await health.answer(state, request)
    if request.user is None:
        raise Unauthorized("Unauthorized")
    request = await check.impersonated(state, request)
    asking.set(request.user)
    await check.authorize(state, request, target)
    if target is None and request.path == "/metrics" and request.method == "GET":
        return await _metrics(state)
    if target is None:
        found = document(state, request) if request.method == "GET" else None
        if found is None:
            raise NotFound("the server could not find the requested resource")
        return conditional.unless_known(request, found)
    return await verb(request, target)(state, request, target)


async def _metrics(state: State) -> Response:
    text = state.metrics.text(health.VERSION["gitVersion"], await state.count())
    return Response(200, text.encode(), content_type=metrics.CONTENT_TYPE)


def document(state: State, request: Request) -> Response | None:
    """What is at a path that names no resource: discovery, OpenAPI, our tokens' keys; None where nothing is."""
    path, custom = request.path.rstrip("/"), state.kinds
    if (found := oidc.answer(state, path)) is not None:
        return found
    match path:
        case "/openapi/v2":
            return _openapi_v2(state, request)
        case "/openapi/v3":
            return Response(200, state.documents.v3_index(custom.served, custom.generation))
    if path.startswith("/openapi/v3/"):
        body = state.documents.v3(path.removeprefix("/openapi/v3/"), custom.served, custom.generation)
        return None if body is None else Response(200, body)
    return discovery.answer(request, custom.served)


def _openapi_v2(state: State, request: Request) -> Response:
    """As protobuf where that is asked for before JSON is. Raises NotAcceptable."""
    for part in request.headers.get("accept", "").split(","):
        media = part.partition(";")[0].strip()
        if media in openapi_protobuf.ACCEPTED:
            body = state.documents.v2(state.kinds.served, state.kinds.generation, protobuf=True)
            return Response(200, body, content_type=openapi_protobuf.MEDIA_TYPE)
        if media == "application/json":
            break
    encode.representation(request)
    return Response(200, state.documents.v2(state.kinds.served, state.kinds.generation, protobuf=False))


def verb(request: Request, target: Target) -> Verb:
    """Raises MethodNotAllowed, NotFound for a subresource nobody serves."""
    method = request.method
    if target.kind.answered:
        if method != "POST" or target.name:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        return reviews.create
    if target.subresource not in ("", "status"):
        methods = _SUBRESOURCE.get(target.subresource)
        if methods is None:
            raise NotFound("the server could not find the requested resource")
        if method not in methods:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        return methods[method]
    if method == "GET" and not target.name and is_true(request.query, "watch"):
        return watch
    found = (_OBJECT if target.name else _COLLECTION).get(method)
    if found is None or (target.subresource == "status" and method == "DELETE"):
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    return found
