"""Connections: handshakes that never end, too many of one address, and who is let in meanwhile. Real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kubesvc.apiserver import doors, listener
from kubesvc.apiserver.doors import Doors, Porter, Verdict
from kubesvc.apiserver.listener import Listener
from kubesvc.client.kubeconfig import tls_context
from kubesvc.client.transport import Request, Response
from support.apiserver import config
from support.certificates import Authority

DEADLINE = 60.0


def test_one_address_is_told_and_then_shut_out_and_others_are_not() -> None:
    found = Doors(of_one=2, shaking=1000, total=1000)
    assert [found.knock("a") for _ in range(3)] == [Verdict.IN, Verdict.IN, Verdict.TELL]
    assert {found.knock("a") for _ in range(doors.TOLD - 1)} == {Verdict.TELL}
    assert found.knock("a") is Verdict.CLOSE
    assert found.knock("b") is Verdict.IN
    for _ in range(doors.TOLD + 1):
        found.leave("a")
    assert found.knock("a") is Verdict.IN


def test_handshakes_of_one_address_are_bounded_until_they_end() -> None:
    found = Doors(of_one=100, shaking=2, total=1000)
    assert [found.knock("a") for _ in range(3)] == [Verdict.IN, Verdict.IN, Verdict.CLOSE]
    assert found.knock("b") is Verdict.IN
    found.through("a")
    assert found.knock("a") is Verdict.IN


def test_there_is_an_end_to_all_of_them_and_one_address_has_half() -> None:
    found = Doors(total=2000)
    verdicts = []
    for _ in range(1200):
        verdicts.append(found.knock("a"))
        found.through("a")
    assert verdicts.count(Verdict.IN) == 1000
    assert all(found.knock(f"b{n}") is Verdict.IN for n in range(2000 - 1000 - doors.TOLD))
    assert found.knock("c") is Verdict.CLOSE


class Served:
    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        ca, crt, key = ((directory / name).read_bytes() for name in ("ca.crt", "admin.crt", "admin.key"))
        self.tls = tls_context(ca, crt, key)

    async def ask(self, address: str = "127.0.0.1") -> int:
        """The status of one request, over a connection of its own from `address`."""
        reader, writer = await self.open(address)
        try:
            return await self.status(reader, writer)
        finally:
            writer.close()

    async def open(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost", local_addr=(address, 0)
        )

    async def status(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        return int((await reader.readuntil(b"\r\n\r\n"))[9:12])


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A listener that lets in four connections of one address, three of them shaking hands, for seconds at most."""
    monkeypatch.setattr(listener, "Doors", lambda: Doors(of_one=4, shaking=3, total=200))
    monkeypatch.setattr(listener, "Porter", lambda *args: Porter(*args, handshake=3.0))
    authority = Authority(tmp_path)
    authority.serving("server", "127.0.0.1", "localhost")
    authority.client("admin", "admin", "system:masters")

    async def handler(request: Request) -> Response:
        return Response(200, b"{}")

    listening = Listener(handler)
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    await listening.start([bound], config(tmp_path))
    yield Served(tmp_path, port)
    await listening.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), DEADLINE) == b""
    except ConnectionResetError:
        return True


async def test_who_never_finishes_a_handshake_is_closed(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    assert await ended(reader)
    writer.close()
    assert doors.HANDSHAKE <= 10.0


async def test_an_address_that_only_knocks_keeps_nobody_else_out(served: Served) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", served.port, local_addr=("127.0.0.9", 0)) for _ in range(40)]
    for _ in range(5):
        assert await asyncio.wait_for(served.ask(), DEADLINE) == 200
    assert all([await ended(reader) for reader, _ in silent])
    for _, writer in silent:
        writer.close()
    assert await asyncio.wait_for(served.ask("127.0.0.9"), DEADLINE) == 200


async def test_one_too_many_is_told_why_and_room_comes_back(served: Served) -> None:
    kept = [await served.open() for _ in range(4)]
    assert [await served.status(*wire) for wire in kept] == [200] * 4
    reader, writer = await served.open()
    writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), DEADLINE)
    assert answer.startswith(b"HTTP/1.1 429")
    assert b"too many connections from one address: at most 4" in answer
    assert b"retry-after: 1" in answer.lower()
    writer.close()
    assert await served.ask("127.0.0.9") == 200
    for _, writer in kept:
        writer.close()
    async with asyncio.timeout(DEADLINE):
        for _ in range(1000):
            if await answered(served):
                return
    raise AssertionError("nobody is let in any more")


async def answered(served: Served) -> bool:
    try:
        return await served.ask() == 200
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
        return False


async def test_a_connection_that_asks_nothing_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listener._KEEP_ALIVE <= 120
    monkeypatch.setattr(listener, "_KEEP_ALIVE", 0.5)
    reader, writer = await served.open()
    assert await ended(reader)
    writer.close()
