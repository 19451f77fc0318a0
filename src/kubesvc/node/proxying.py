"""Requests passed on to an address this node reaches: pods, endpoints, other ports of the node.

    API server ──► /proxy/SCHEME/ADDRESS/PORT/PATH?QUERY here ──► SCHEME://ADDRESS:PORT/PATH?QUERY

Only the API server gets here (server.py sees to it), and it says which addresses. Certificates are not verified: a
pod's is nobody's we know. Bodies are streamed, redirects passed back.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp
from aiohttp import web
from yarl import URL

from kubesvc.api.errors import BadRequest, ServiceUnavailable
from kubesvc.client.takeover import take_over
from kubesvc.client.tunnel import Duplex, ask, end_to_end, join, wants_upgrade

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # for an upgrade to be agreed to
PATH = "/proxy/{scheme:https?}/{address}/{port:[0-9]+}/{rest:.*}"
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Proxying:
    """The connections of one agent to what is behind it."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None
        self._unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the machine's CAs
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._unverified, limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._http

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Raises ServiceUnavailable when nobody answers there."""
        found: Mapping[str, str] = request.match_info
        address, port = found["address"], int(found["port"])
        if not 0 < port < 65536:
            raise BadRequest(f"{port} is not a port")
        # As it was written: /proxy/SCHEME/ADDRESS/PORT/… is five slashes.
        target = "/" + request.rel_url.raw_path.split("/", 5)[5]
        if request.rel_url.raw_query_string:
            target += f"?{request.rel_url.raw_query_string}"
        try:
            if wants_upgrade(request.headers):
                return await self._upgrade(request, found["scheme"], address, port, target)
            host = f"[{address}]" if ":" in address else address
            return await self._pass_on(request, f"{found['scheme']}://{host}:{port}{target}")
        except (aiohttp.ClientConnectionError, OSError, TimeoutError) as error:
            raise ServiceUnavailable(f"error trying to reach service: {_plain(error)}") from error

    async def _upgrade(
        self, request: web.Request, scheme: str, address: str, port: int, target: str
    ) -> web.StreamResponse:
        headers = end_to_end(request.headers.items(), upgrade=True)
        tls = self._unverified if scheme == "https" else None
        async with asyncio.timeout(ANSWER_SECONDS):
            head, wire = await ask(address, port, tls, request.method, target, headers)

        async def run(client: Duplex) -> None:
            await join(client, wire)

        try:
            return await take_over(request, head.final(), run)
        finally:
            wire.close()

    async def _pass_on(self, request: web.Request, url: str) -> web.StreamResponse:
        answer = await self._session().request(
            request.method,
            URL(url, encoded=True),
            headers=end_to_end(request.headers.items()),
            data=request.content.iter_any() if request.body_exists else None,
            allow_redirects=False,
            skip_auto_headers=_AUTOMATIC,
        )
        async with answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in end_to_end(answer.headers.items()):
                response.headers.add(name, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def _plain(error: Exception) -> str:
    """What the system said, without the client library's wrapping."""
    inner = getattr(error, "os_error", error)
    return str(inner) or type(inner).__name__
