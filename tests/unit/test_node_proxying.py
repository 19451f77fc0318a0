"""An agent passes requests on: to TLS without verification, as they come, and says when nobody is there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from kubesvc.api.errors import ServiceUnavailable
from kubesvc.node.proxying import PATH, Proxying
from support.certificates import Authority

DEADLINE = 60.0


@asynccontextmanager
async def serving(
    path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def agent() -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """The URL of a proxying agent, and a client."""
    proxying = Proxying()

    async def serve(request: web.Request) -> web.StreamResponse:
        try:
            return await proxying.serve(request)
        except ServiceUnavailable as error:
            return web.json_response(error.to_status(), status=error.code)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(DEADLINE))
        port = await stack.enter_async_context(serving(PATH, serve))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        stack.push_async_callback(proxying.close)
        yield f"http://127.0.0.1:{port}/proxy", client


async def test_https_is_not_verified(tmp_path: Path) -> None:
    """The certificate is of an authority nobody knows, for a name that isn't this one."""
    Authority(tmp_path).serving("pod", "192.0.2.9")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "pod.crt", tmp_path / "pod.key")

    async def secret(request: web.Request) -> web.Response:
        return web.Response(text=f"over {request.scheme}: {request.rel_url}")

    async with serving("/{rest:.*}", secret, tls) as port, agent() as (url, client):
        answer = await client.get(f"{url}/https/127.0.0.1/{port}/a/b?c=d")
        assert await answer.text() == "over https: /a/b?c=d"


async def test_bodies_pass_as_they_come() -> None:
    """The answer to the first piece of a request is there before the second is sent."""

    async def echo(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        async for piece in request.content.iter_any():
            await answer.write(piece)
        return answer

    more: asyncio.Queue[bytes] = asyncio.Queue()

    async def pieces() -> AsyncIterator[bytes]:
        while piece := await more.get():
            yield piece

    async with serving("/", echo) as port, agent() as (url, client):
        more.put_nowait(b"first")
        async with client.post(f"{url}/http/127.0.0.1/{port}/", data=pieces()) as answer:
            assert await answer.content.readany() == b"first"
            more.put_nowait(b"second")
            assert await answer.content.readany() == b"second"
            more.put_nowait(b"")
            assert await answer.content.read() == b""


@pytest.mark.parametrize("headers", [{}, {"Connection": "Upgrade", "Upgrade": "echo"}], ids=["request", "upgrade"])
async def test_nobody_there_is_said(headers: dict[str, str]) -> None:
    async with agent() as (url, client), client.get(f"{url}/http/127.0.0.1/1/", headers=headers) as answer:
        assert answer.status == 503
        message = (await answer.json())["message"]
        assert message.startswith("error trying to reach service: ")
        assert "refused" in message or "Connect call failed" in message
