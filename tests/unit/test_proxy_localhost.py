"""UDP node ports on ::1: a socket for each that has endpoints, for as long as it has them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from kubesvc.proxy import localhost
from kubesvc.proxy.layout import TCP, UDP, tail
from support.ports import free_port

DEADLINE = 60.0
NODE = ip_address("127.0.0.1").packed


class Known:
    """What the forwarder asks of Frontends; `with_endpoints` are keys."""

    def __init__(self, *with_endpoints: bytes) -> None:
        self.node_port_ips = (NODE,)
        self.with_endpoints = set(with_endpoints)

    def find(self, key: bytes) -> object:
        return SimpleNamespace(endpoints=(b"x",)) if key in self.with_endpoints else None


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not check():  # noqa: ASYNC110 (a state of the kernel, which has no event for it)
            await asyncio.sleep(0.01)


def answers(port: int) -> bool:
    """Whether somebody has the port."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as end:
        try:
            end.bind(("::1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        return False


@pytest.fixture
def node_port() -> int:
    return free_port()


async def test_a_port_is_open_while_it_has_endpoints(node_port: int) -> None:
    """TCP ports and other addresses' are no concern; datagrams reach what answers at the node port, and come back."""
    key = NODE + tail(UDP, node_port)
    known = Known(key)
    forwarder = localhost.DatagramForwarder(known)  # type: ignore[arg-type]
    task = asyncio.create_task(forwarder.run())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", node_port))
        server.setblocking(False)
        forwarder.changed([NODE + tail(TCP, node_port)])
        await asyncio.sleep(0)
        assert not answers(node_port)
        forwarder.changed([key])
        await until(lambda: answers(node_port))
        loop = asyncio.get_running_loop()
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        client.setblocking(False)
        client.connect(("::1", node_port))
        client.send(b"hello")
        async with asyncio.timeout(DEADLINE):
            data = b""
            while data != b"hello":
                data, who = await loop.sock_recvfrom(server, 100)
            await loop.sock_sendto(server, b"and you", who)
            assert await loop.sock_recv(client, 100) == b"and you"
        client.close()
    known.with_endpoints.clear()
    forwarder.changed([key])
    await until(lambda: not answers(node_port))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_port_that_a_program_has_is_left_to_it(
    node_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; served as soon as the program ends."""
    monkeypatch.setattr(localhost, "_AGAIN", 0.02)
    key = NODE + tail(UDP, node_port)
    forwarder = localhost.DatagramForwarder(Known(key))  # type: ignore[arg-type]
    task = asyncio.create_task(forwarder.run())
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as program:
        program.bind(("::1", node_port))
        forwarder.changed([key])
        await until(lambda: "doesn't answer on ::1" in caplog.text)
    await until(lambda: answers(node_port))
    assert caplog.text.count("doesn't answer on ::1") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not answers(node_port)
