"""The seam between a session and whatever answers it: TLS to a server, or the server's own handler chain in-process.

`Request` and `Response` are also what the API server's handlers take and give, so that a controller living inside the
server passes through the same authentication, authorisation and admission as kubectl does.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import aiohttp
import msgspec
from yarl import URL

from kubesvc.client.tunnel import Duplex

_LEAVE = 61.0  # seconds: longer than any request but a watch


class User(msgspec.Struct, frozen=True):
    """Who asks: a certificate's common name and organisations, or what a token stands for. `extra` is what else an
    authenticator knows, (name, values) each. Who isn't `authenticated` is in no group but those named."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    authenticated: bool = True


class Request(msgspec.Struct, frozen=True):
    """One API request. `path` starts with a slash and has no query; header names are lower-case.

    `raw_query` and `raw_path` are as they came, where a transport has them: for parameters that repeat, as exec's
    command, and for what a proxy passes on. `content` is a body that is not read yet; `body` is empty then.
    """

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""
    user: User | None = None
    raw_query: str = ""
    raw_path: str = ""
    content: AsyncIterator[bytes] | None = None
    source: str = ""  # the client's address


class Upgrade(msgspec.Struct, frozen=True):
    """An answer after which the connection is no longer HTTP: `head` is its status line and headers, as sent; `run`
    has the bytes both ways until it returns; `abandon` is for a client that has gone before that."""

    head: bytes
    run: Callable[[Duplex], Awaitable[None]]
    abandon: Callable[[], None]


class Response(msgspec.Struct):
    """An answer: `body`; or for a watch `stream`, an iterator of JSON lines that ends when either side does (for
    logs and proxies, of bytes); or an `upgrade`. `cookies` are Set-Cookie's values, the one header that can't be
    joined."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}
    content_type: str = "application/json"
    stream: AsyncIterator[bytes] | None = None
    upgrade: Upgrade | None = None
    cookies: tuple[str, ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


class Transport(Protocol):
    async def send(self, request: Request) -> Response:
        """Raises OSError (or aiohttp.ClientError) when nobody answers; HTTP errors are Responses."""
        ...

    async def close(self) -> None: ...


class LocalTransport:
    """In-process: calls the server's handler chain as `user`."""

    def __init__(self, handler: Handler, user: User) -> None:
        self._handler = handler
        self._user = user

    async def send(self, request: Request) -> Response:
        return await self._handler(msgspec.structs.replace(request, user=self._user))

    async def close(self) -> None:
        return None


class HttpTransport:
    """TLS to `server` (https://host:port). The connection pool is made on first use, inside the running loop.

    `token` gives the bearer token of each request, "" for none: tokens in files are replaced while we run. So are
    certificates: `renewed` is asked before each request for a context to use from then on, None for the one there is.
    """

    def __init__(
        self,
        server: str,
        tls: ssl.SSLContext | None,
        token: Callable[[], str] = lambda: "",
        renewed: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        self._server = server.rstrip("/")
        self._tls = tls
        self._token = token
        self._renewed = renewed
        self._http: aiohttp.ClientSession | None = None
        self._leaving: set[asyncio.Task[None]] = set()  # sessions of certificates that were replaced

    def _session(self) -> aiohttp.ClientSession:
        if (tls := self._renewed()) is not None:
            self._tls = tls
            if self._http is not None:
                task = asyncio.get_running_loop().create_task(_leave(self._http))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
                self._http = None
        if self._http is None:
            connector = aiohttp.TCPConnector(ssl=self._tls if self._tls else True, limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            self._http = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=True)
        return self._http

    async def send(self, request: Request) -> Response:
        watching = not {"1", "true"}.isdisjoint((request.query.get("watch"), request.query.get("follow")))
        headers = dict(request.headers)
        if token := self._token():
            headers["authorization"] = f"Bearer {token}"
        answer = await self._session().request(
            request.method,
            self._server + request.path,
            params=request.query,
            data=request.body or None,
            # Lists come over a short way, and packing them costs more than sending them.
            headers={"accept-encoding": "identity", **headers},
            timeout=aiohttp.ClientTimeout(total=None if watching else 60, sock_connect=10),
        )
        content_type = answer.content_type
        headers = {k.lower(): v for k, v in answer.headers.items()}
        if watching and answer.status == 200:
            return Response(answer.status, headers=headers, content_type=content_type, stream=_lines(answer))
        async with answer:
            return Response(answer.status, await answer.read(), headers, content_type)

    def websocket(self, path: str, protocol: str) -> Any:
        """aiohttp's context of a WebSocket to `path`, which holds its query."""
        headers = {"authorization": f"Bearer {token}"} if (token := self._token()) else {}
        url = URL(self._server + path, encoded=True)
        return self._session().ws_connect(url, protocols=(protocol,), headers=headers, max_msg_size=0)

    async def close(self) -> None:
        leaving = list(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
            self._http = None


async def _leave(http: aiohttp.ClientSession) -> None:
    """Close it once what is under way has had its time; watches then go on over new connections."""
    try:
        await asyncio.sleep(_LEAVE)
    finally:
        await http.close()


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines, of any length: a StreamReader's own line limit is too small for a large object.

    A stream left before its end takes its connection with it at once: nobody waits for a goodbye in TLS.
    """
    rest: list[bytes] = []
    try:
        async for chunk in answer.content.iter_any():
            first, *others = chunk.split(b"\n")
            rest.append(first)
            for part in others:
                yield b"".join(rest)
                rest = [part]
    finally:
        connection = answer.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        answer.close()
