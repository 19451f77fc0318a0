"""HTTP over TLS to Request and Response: sockets in, the handler's answers out.

A client certificate is optional at the TLS level, so that whoever has none gets a Status that says 401 and not a
broken handshake. One that isn't signed by the clients' CA never gets through the handshake.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, Sequence

from aiohttp import web

from kubesvc.apiserver.config import ApiConfig
from kubesvc.client.transport import Handler, Request, Response, Upgrade, User

_LARGEST_BODY = 3 << 20  # bytes, as upstream's limit for a request
_KEEP_ALIVE = 3600.0  # seconds: clients reuse connections, and a TLS handshake is dear
_CLOSE_SECONDS = 0.5


class Listener:
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._runner: web.ServerRunner | None = None

    async def start(self, sockets: Sequence[socket.socket], config: ApiConfig) -> None:
        # Cancelling a handler whose client has gone is what ends an idle watch.
        server = web.Server(self._answer, handler_cancellation=True, access_log=None, keepalive_timeout=_KEEP_ALIVE)
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
        body = await incoming.read() if incoming.body_exists else b""
        request = Request(
            incoming.method,
            incoming.path,
            incoming.query,
            {name.lower(): value for name, value in incoming.headers.items()},
            body,
            _user(incoming),
            incoming.rel_url.raw_query_string,
        )
        response = await self._handler(request)
        if response.stream is not None:
            return await _stream(incoming, response)
        if response.upgrade is not None:
            return await _upgrade(incoming, response.upgrade)
        return web.Response(
            status=response.status,
            body=response.body,
            headers={"Content-Type": response.content_type, **response.headers},
        )


async def _stream(incoming: web.BaseRequest, response: Response) -> web.StreamResponse:
    assert response.stream is not None
    answer = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
    answer.headers.update(response.headers)
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
    client = web.WebSocketResponse(protocols=(upgrade.protocol,), max_msg_size=0)
    try:
        await client.prepare(incoming)
    except BaseException:
        await upgrade.abandon()
        raise
    await upgrade.run(client)
    return client


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
