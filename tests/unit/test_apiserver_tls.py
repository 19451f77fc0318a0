"""The server behind TLS: who a certificate says its holder is, streams that end, bodies that are too large."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from kubesvc.api.errors import ApiError
from kubesvc.api.registry import CONFIG_MAP
from kubesvc.apiserver import listener
from kubesvc.apiserver.listener import Listener
from kubesvc.client import kubeconfig
from kubesvc.client.kubeconfig import tls_context
from kubesvc.client.transport import Request, Response, User
from support.apiserver import ServerThread, config, tls_server
from support.certificates import Authority


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with tls_server(tmp_path_factory.mktemp("apiserver")) as running:
        yield running


def client_tls(directory: Path, name: str = "") -> ssl.SSLContext:
    ca = (directory / "ca.crt").read_bytes()
    if not name:
        return tls_context(ca, None, None)
    return tls_context(ca, (directory / f"{name}.crt").read_bytes(), (directory / f"{name}.key").read_bytes())


async def test_a_session_from_a_kubeconfig_reads_writes_and_watches(server: ServerThread) -> None:
    session = kubeconfig.load(server.kubeconfig)
    made = await session.create(CONFIG_MAP, {"metadata": {"name": "tls", "namespace": "default"}})
    events = session.watch(CONFIG_MAP, since=made["metadata"]["resourceVersion"], timeout_seconds=5)
    await session.delete(CONFIG_MAP, "default", "tls")
    async with asyncio.timeout(60):
        assert (await anext(events)).type == "DELETED"
    await events.aclose()  # type: ignore[attr-defined]
    await session.close()


async def test_without_a_certificate_401_is_a_status(server: ServerThread) -> None:
    session = kubeconfig.load(server.stranger)
    with pytest.raises(ApiError) as refused:
        await session.raw("GET", "/api/v1/services")
    assert (refused.value.code, refused.value.message) == (401, "Unauthorized")
    assert (await session.raw("GET", "/livez")).body == b"ok"
    await session.close()


def test_a_certificate_of_another_authority_is_not_let_in(server: ServerThread, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "another-ca")
    stranger.client("admin", "admin", "system:masters")
    tls = client_tls(server.directory)
    tls.load_cert_chain(tmp_path / "admin.crt", tmp_path / "admin.key")
    assert first_byte(server.port, tls) == b""
    tls = client_tls(server.directory, "admin")
    assert first_byte(server.port, tls) == b"H"


OPEN = ("/livez", "/readyz", "/healthz", "/version", "/readyz?verbose", "/livez/ping")
CLOSED = (
    "/", "/api", "/apis", "/openapi/v2", "/openapi/v3", "/metrics", "/livezz", "/api/v1/secrets",
    "/version/../api/v1/secrets", "/api/v1/../../livez", "/nothing/there",
)  # fmt: skip
NONE_SUCH = ("/livez/../api/v1/secrets", "//livez/../api", "/readyz/%2e%2e/api", "/livez%2f..%2fapi")
STRANGERS = [(path, status) for paths, status in ((OPEN, 200), (CLOSED, 401), (NONE_SUCH, 404)) for path in paths]


@pytest.mark.parametrize(("path", "status"), STRANGERS)
def test_without_a_certificate_only_health_and_version_answer(server: ServerThread, path: str, status: int) -> None:
    """Whatever the path is made to look like, and whatever method, it is one of these or 401."""
    for method in ("GET", "POST", "DELETE"):
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=60) as plain,
            client_tls(server.directory).wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nimpersonate-user: admin\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.split()[1] == str(status).encode(), (method, answer)
        assert b"Secret" not in answer


def test_an_expired_certificate_is_not_let_in(server: ServerThread) -> None:
    """Not even an administrator's."""
    server.authority.client("late", "admin", "system:masters", expired=True)
    assert first_byte(server.port, client_tls(server.directory, "late")) == b""


def first_byte(port: int, tls: ssl.SSLContext) -> bytes:
    """Of the answer to a request; b"" when the connection ends instead, by an alert, a reset or in order."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        try:
            with tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                return connection.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""


async def test_a_body_over_the_limit_is_413(server: ServerThread) -> None:
    tls = client_tls(server.directory, "admin")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as http:
        url = f"https://127.0.0.1:{server.port}{CONFIG_MAP.path('default')}"
        answer = await http.post(url, data=io.BytesIO(b" " * (4 << 20)))
        status = await answer.json()
    assert (answer.status, status["kind"], status["reason"]) == (413, "Status", "RequestEntityTooLarge")


async def test_who_asks_comes_from_the_certificate_and_a_watcher_that_leaves_is_let_go(tmp_path: Path) -> None:
    """The handler sees CN and every O; when the client goes, the stream it was given is closed."""
    asked: list[User | None] = []
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def handler(request: Request) -> Response:
        asked.append(request.user)
        return Response(200, stream=endless())

    authority = Authority(tmp_path)
    authority.serving("server", "127.0.0.1")
    authority.client("jo", "jo", "developers", "readers")
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    listening = Listener(handler)
    await listening.start([bound], config(tmp_path, port=port))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls(tmp_path, "jo"))) as http:
        answer = await http.get(f"https://127.0.0.1:{port}/x")
        assert await answer.content.readline() == b"first\n"
        answer.close()
    async with asyncio.timeout(60):
        await closed.wait()
    await listening.close()
    assert asked == [User("jo", ("developers", "readers"))]


class GoneWriter:
    """What aiohttp writes an answer with, of a connection that has just been closed."""

    output_size = 0

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

        return refuse


async def test_a_watcher_that_leaves_before_its_answer_begins_is_let_go() -> None:
    """That is no error, and its stream is closed."""

    async def endless() -> AsyncIterator[bytes]:
        yield b"first"

    stream = endless()
    await listener._stream(make_mocked_request("GET", "/x", writer=GoneWriter()), Response(200, stream=stream), None)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
