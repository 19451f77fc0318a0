"""HTTP over TLS to Request and Response: sockets in, the handler's answers out.

A client certificate is optional at the TLS level, so that whoever has none gets a Status that says 401 and not a
broken handshake. One that isn't signed by the clients' CA never gets through the handshake.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Sequence

from aiohttp import web

from kubesvc.api.errors import TooLarge
from kubesvc.apiserver import encode
from kubesvc.apiserver.config import ApiConfig
from kubesvc.apiserver.routing import streamed
from kubesvc.client.takeover import take_over
from kubesvc.client.transport import Handler, Request, Response, Upgrade, User

_LARGEST_BODY = 3 << 20  # bytes, as upstream's limit for a request
_KEEP_ALIVE = 3600.0  # seconds: clients reuse connections, and a TLS handshake is dear
_CLOSE_SECONDS = 0.5


class Listener:
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._runner: web.ServerRunner | None = None

    async def start(self, sockets: Sequence[socket.socket], config: ApiConfig) -> None:
        loop = asyncio.get_running_loop()
        server = web.Server(
            self._answer,
            request_factory=lambda message, payload, protocol, writer, task: web.BaseRequest(
                message, payload, protocol, writer, task, loop, client_max_size=_LARGEST_BODY
            ),
            handler_cancellation=True,  # a client that has gone ends its idle watch
            access_log=None,
            keepalive_timeout=_KEEP_ALIVE,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_SECONDS, handle_signals=False)
        await self._runner.setup()
        tls = tls_context(config)
        for bound in sockets:
            await web.SockSite(self._runner, bound, ssl_context=tls, backlog=1024).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, incoming: web.BaseRequest) -> web.StreamResponse:
        content = incoming.content.iter_any() if incoming.body_exists and streamed(incoming.path) else None
        try:
            body = await incoming.read() if incoming.body_exists and content is None else b""
        except web.HTTPRequestEntityTooLarge:
            error = TooLarge(f"Request entity too large: limit is {_LARGEST_BODY}")
            return _whole(encode.failure(error))
        request = Request(
            incoming.method,
            incoming.path,
            incoming.query,
            _headers(incoming),
            body,
            _user(incoming),
            incoming.rel_url.raw_query_string,
            incoming.rel_url.raw_path,
            content,
        )
        response = await self._handler(request)
        if response.stream is not None:
            return await _stream(incoming, response)
        if response.upgrade is not None:
            return await _upgrade(incoming, response.upgrade)
        return _whole(response)


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


async def _stream(incoming: web.BaseRequest, response: Response) -> web.StreamResponse:
    assert response.stream is not None
    answer = web.StreamResponse(status=response.status, headers=response.headers)
    if response.content_type:
        answer.headers["Content-Type"] = response.content_type
    for cookie in response.cookies:
        answer.headers.add("Set-Cookie", cookie)
    await answer.prepare(incoming)
    try:
        async for chunk in response.stream:
            await answer.write(chunk)
        await answer.write_eof()
    except ConnectionError:  # the client has gone, as watchers do
        pass
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
    """The common name and the organisations of the client's certificate."""
    transport = incoming.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        return None
    names = [pair for part in certificate.get("subject", ()) for pair in part]
    common = next((value for field, value in names if field == "commonName"), "")
    groups = tuple(value for field, value in names if field == "organizationName")
    return User(common, groups) if common else None


def tls_context(config: ApiConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_cert, config.tls_key)
    context.load_verify_locations(config.client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context
