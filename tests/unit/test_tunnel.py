"""Upgrades: what a proxy passes on, heads as they are read and rewritten, a connection taken over and joined."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from kubesvc.client.takeover import switching, take_over
from kubesvc.client.tunnel import Duplex, ask, end_to_end, join, parse_head, wants_upgrade

DEADLINE = 60.0


def test_headers_about_one_connection_stay_there() -> None:
    given = [
        ("Connection", "keep-alive, X-Own"),
        ("X-Own", "1"),
        ("Keep-Alive", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Accept", "x"),
        ("Upgrade", "echo"),
    ]
    assert end_to_end(given) == [("Accept", "x")]
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "echo"), ("Accept", "x")]
    assert sorted(end_to_end(upgrade, upgrade=True)) == sorted(upgrade)


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"connection": "keep-alive, Upgrade", "upgrade": "websocket"}, True),
        ({"connection": "keep-alive", "upgrade": "websocket"}, False),
        ({"connection": "Upgrade"}, False),
        ({}, False),
    ],
)
def test_an_upgrade_needs_both_headers(headers: dict[str, str], wanted: bool) -> None:
    assert wants_upgrade(headers) is wanted


def test_an_answer_that_is_no_upgrade_ends_its_connection() -> None:
    refused = parse_head(b"HTTP/1.1 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n")
    assert (refused.status, refused.headers["content-length"]) == (404, "3")
    assert refused.final() == b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    agreed = parse_head(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n")
    assert agreed.final() == agreed.raw


@pytest.mark.parametrize("raw", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_not_http_is_not_understood(raw: bytes) -> None:
    with pytest.raises(ValueError):
        parse_head(raw)


@asynccontextmanager
async def serving(handler: object) -> AsyncIterator[int]:
    """aiohttp, as the API server and the agents use it; its port."""
    runner = web.ServerRunner(web.Server(handler, handler_cancellation=True, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


HEADERS = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "echo")]


async def echo(wire: Duplex) -> None:
    while data := await wire.read():
        await wire.write(data)


async def test_a_connection_is_taken_over_and_given_back_when_it_ends() -> None:
    ended = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        async def run(wire: Duplex) -> None:
            await echo(wire)
            ended.set()

        return await take_over(request, switching("echo", {"X": "y"}), run)

    async with asyncio.timeout(DEADLINE), serving(handler) as port:
        head, wire = await ask("127.0.0.1", port, None, "POST", "/x", HEADERS)
        assert (head.status, head.headers["x"]) == (101, "y")
        sent, got = b"z" * 1_000_000, b""
        writing = asyncio.create_task(wire.write(sent))
        while len(got) < len(sent):
            got += await wire.read()
        await writing
        assert got == sent
        wire.close()
        await ended.wait()


async def test_joined_connections_end_together() -> None:
    """client ─► outer ─► inner: the client leaves, and the inner one sees the end."""
    left = asyncio.Event()

    async def inner(request: web.BaseRequest) -> web.StreamResponse:
        async def run(wire: Duplex) -> None:
            await echo(wire)
            left.set()

        return await take_over(request, switching("echo", {}), run)

    async with asyncio.timeout(DEADLINE), serving(inner) as inside:

        async def outer(request: web.BaseRequest) -> web.StreamResponse:
            head, further = await ask("127.0.0.1", inside, None, "GET", "/", HEADERS)

            async def run(wire: Duplex) -> None:
                await join(wire, further)

            return await take_over(request, head.final(), run)

        async with serving(outer) as port:
            _, wire = await ask("127.0.0.1", port, None, "GET", "/", HEADERS)
            await wire.write(b"through both")
            assert await wire.read() == b"through both"
            wire.close()
            await left.wait()


async def test_nobody_there_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError):
        await ask("127.0.0.1", 1, None, "GET", "/", [])
