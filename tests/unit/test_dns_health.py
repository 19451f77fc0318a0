"""Health and metrics over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from kubesvc.dns.health import HealthServer


@pytest.fixture
async def url() -> AsyncIterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = HealthServer(listening, lambda: "the caches have not synced", lambda: "coredns_panics_total 0\n")
    await server.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    await server.stop()
    listening.close()


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/livez", 200, "ok"),
        ("/readyz", 503, "not synced"),
        ("/health", 200, "ok"),
        ("/ready", 503, "not synced"),
        ("/metrics", 200, "coredns_panics_total 0"),
        ("/secrets", 404, "/metrics"),
    ],
)
async def test_path(url: str, path: str, status: int, text: str) -> None:
    """Alive while it runs, ready once synced, counters as Prometheus reads them."""
    async with aiohttp.ClientSession() as http, http.get(url + path) as answer:
        assert answer.status == status
        assert text in await answer.text()


async def test_what_isnt_http_is_hung_up_on(url: str) -> None:
    """A client that speaks something else learns nothing and holds nothing."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"x" * 100_000)
    async with asyncio.timeout(60):
        try:
            assert await reader.read() == b""
        except ConnectionError:  # reset, because we didn't read all it sent
            pass
    writer.close()
