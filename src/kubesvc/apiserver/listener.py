"""HTTP over TLS to Request and Response: sockets in, the handler's answers out.

Who asks is what a client's certificate says or, without one, what its bearer token stands for.
A client certificate is optional at the TLS level, so that whoever has none gets a Status that says 401 and not a
broken handshake. One that isn't signed by the clients' CA never gets through the handshake.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from kubesvc.api.errors import ApiError, BadRequest, RequestTimeout, TooLarge
from kubesvc.apiserver import encode
from kubesvc.apiserver.config import ApiConfig
from kubesvc.apiserver.doors import Doors, Porter, Verdict
from kubesvc.apiserver.fairness import Seats
from kubesvc.apiserver.routing import is_true, streamed
from kubesvc.client.pemfiles import keep_fresh
from kubesvc.client.takeover import take_over
from kubesvc.client.transport import Handler, Request, Response, Upgrade, User

log = logging.getLogger(__name__)
_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
"""Of aiohttp's own: what isn't HTTP is answered 400, and whoever sends it doesn't fill our log."""

_LARGEST_BODY = 3 << 20  # bytes, as upstream's limit for a request
_KEEP_ALIVE = 90.0  # seconds without a request, as upstream
_BACKLOG = 1024
_CLOSE_SECONDS = 0.5
_BODY_SECONDS = 30.0
_PATIENCE = 30.0  # seconds that a watcher may leave its connection full


Authenticate = Callable[[str], Awaitable[User | None]]
"""Who has sent this Authorization header; None for nobody known."""


async def _nobody(_: str) -> User | None:
    return None


class Listener:
    def __init__(self, handler: Handler, authenticate: Authenticate = _nobody) -> None:
        self._handler = handler
        self._authenticate = authenticate
        self._seats = Seats()
        self._runner: web.ServerRunner | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._doors = Doors()
        self._porter: Porter | None = None
        self._sockets: tuple[socket.socket, ...] = ()

    async def start(self, sockets: Sequence[socket.socket], config: ApiConfig) -> None:
        loop = asyncio.get_running_loop()
        server = web.Server(
            self._answer,
            request_factory=lambda message, payload, protocol, writer, task: web.BaseRequest(
                message, payload, protocol, writer, task, loop, client_max_size=_LARGEST_BODY
            ),
            handler_cancellation=True,  # a client that has gone ends its idle watch
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_SECONDS, handle_signals=False)
        await self._runner.setup()
        tls = tls_context(config)
        self._renewing = asyncio.create_task(keep_fresh(tls, config.tls_cert, config.tls_key), name="apiserver-tls")
        self._sockets = tuple(sockets)
        self._porter = Porter(self._doors, tls, lambda verdict, left: _Connection(server, loop, verdict, left))
        for bound in sockets:
            self._porter.listen(bound, _BACKLOG)

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        if self._porter is not None:
            for bound in self._sockets:
                self._porter.close(bound)
            self._porter = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, incoming: web.BaseRequest) -> web.StreamResponse:
        if isinstance(incoming.protocol, _Connection) and incoming.protocol.verdict is Verdict.TELL:
            refused = _whole(encode.failure(self._doors.refusal()))
            refused.force_close()
            return refused
        user = _user(incoming)
        if user is None and (authorization := incoming.headers.get("Authorization", "")):
            user = await self._authenticate(authorization)
        known = user is not None and incoming.body_exists  # what strangers send is nothing to be kept, or waited for
        content = incoming.content.iter_any() if known and streamed(incoming.path) else None
        try:
            body = await _read(incoming) if known and content is None else b""
        except ApiError as error:
            refused = _whole(encode.failure(error))
            if isinstance(error, RequestTimeout):
                refused.force_close()
            return refused
        request = Request(
            incoming.method,
            incoming.path,
            incoming.query,
            _headers(incoming),
            body,
            user,
            incoming.rel_url.raw_query_string,
            incoming.rel_url.raw_path,
            content,
            incoming.remote or "",
        )
        try:
            await self._seats.take(user.name if user else "")
        except ApiError as error:
            return _whole(encode.failure(error))
        try:
            response = await self._handler(request)
        finally:
            self._seats.give_back()
        if response.stream is not None:
            return await _stream(incoming, response, _PATIENCE if is_true(request.query, "watch") else None)
        if response.upgrade is not None:
            return await _upgrade(incoming, response.upgrade)
        return _whole(response)


class _Connection(web.RequestHandler):
    """One connection, which says when it ends."""

    __slots__ = ("_left", "verdict")

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        verdict: Verdict,
        left: Callable[[], None],
    ) -> None:
        no_log: Any = None  # which aiohttp takes, and its types don't
        super().__init__(server, loop=loop, access_log=no_log, logger=_http_log, keepalive_timeout=_KEEP_ALIVE)
        self.verdict, self._left = verdict, left

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._left()


def _headers(incoming: web.BaseRequest) -> dict[str, str]:
    """By name in lower case; what came more than once is joined, which is the same to HTTP."""
    found: dict[str, str] = {}
    for name, value in incoming.headers.items():
        key = name.lower()
        found[key] = f"{found[key]}{'; ' if key == 'cookie' else ', '}{value}" if key in found else value
    return found


def _whole(response: Response) -> web.Response:
    headers = {"Content-Type": response.content_type, **response.headers}
    return web.Response(status=response.status, body=response.body, headers=headers)


async def _read(incoming: web.BaseRequest) -> bytes:
    """The whole body. Raises TooLarge, and RequestTimeout for one that comes drop by drop."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await incoming.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge(f"Request entity too large: limit is {_LARGEST_BODY}") from error
    except TimeoutError as error:
        raise RequestTimeout(f"the body of the request didn't arrive within {_BODY_SECONDS:g} s") from error
    except (web.HTTPException, aiohttp.ClientError, OSError, ValueError) as error:
        raise BadRequest(f"the body of the request can't be read: {error}") from error


async def _stream(incoming: web.BaseRequest, response: Response, patience: float | None) -> web.StreamResponse:
    """With `patience`, in seconds, a client that doesn't read for so long is dropped: it can watch again from where it
    was, and nothing is kept for it meanwhile."""
    assert response.stream is not None
    answer = web.StreamResponse(status=response.status, headers=response.headers)
    if response.content_type:
        answer.headers["Content-Type"] = response.content_type
    for cookie in response.cookies:
        answer.headers.add("Set-Cookie", cookie)
    try:
        await answer.prepare(incoming)
        async for chunk in response.stream:
            async with asyncio.timeout(patience):
                await answer.write(chunk)
        await answer.write_eof()
    except ConnectionError:  # the client has gone, as watchers do
        pass
    except TimeoutError:
        log.info("%s: dropped a watch whose client doesn't read", incoming.path)
        if incoming.transport is not None:
            incoming.transport.abort()
    finally:
        if isinstance(response.stream, AsyncGenerator):
            await response.stream.aclose()
    return answer


async def _upgrade(incoming: web.BaseRequest, upgrade: Upgrade) -> web.StreamResponse:
    try:
        return await take_over(incoming, upgrade.head, upgrade.run)
    except ConnectionResetError:
        upgrade.abandon()
        raise


def _user(incoming: web.BaseRequest) -> User | None:
    """The common name and the organisations of the client's certificate. One that has expired since the handshake is
    nobody's any more."""
    transport = incoming.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate or _expiry(certificate["notAfter"]) < time.time():
        return None
    names = [pair for part in certificate.get("subject", ()) for pair in part]
    common = next((value for field, value in names if field == "commonName"), "")
    groups = tuple(value for field, value in names if field == "organizationName")
    return User(common, groups) if common else None


_expiry = lru_cache(maxsize=4096)(ssl.cert_time_to_seconds)


def tls_context(config: ApiConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_cert, config.tls_key)
    context.load_verify_locations(config.client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context
