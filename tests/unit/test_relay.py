"""Bytes passed on between sockets: both ways, to the end, and honest about failures."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from kubesvc.kernel import relay

DEADLINE = 60.0
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def relayed(handler: Handler | None) -> AsyncIterator[int]:
    """A relay in front of a server that handles connections so; None: nobody listens behind it. Gives its port."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(handler, "127.0.0.1", 0) if handler else None
    unheard = socket.socket()  # bound, so that nobody else comes to listen there
    unheard.bind(("127.0.0.1", 0))
    port = (server.sockets[0] if server else unheard).getsockname()[1]

    async def dial(_client: socket.socket) -> socket.socket:
        target = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(target, ("127.0.0.1", port))
        except BaseException:
            target.close()
            raise
        return target

    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(relay.connections(listener, dial))
    try:
        async with asyncio.timeout(DEADLINE):
            yield listener.getsockname()[1]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listener.close()
        unheard.close()
        if server is not None:
            server.close()


async def test_each_direction_ends_by_itself() -> None:
    """The server answers only once the client has said all and ended: eight megabytes there and back."""

    async def after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.write(said[::-1])
        await writer.drain()
        writer.close()

    sent = bytes(range(256)) * (8 << 12)
    async with relayed(after_the_end) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await writer.drain()
        writer.write_eof()
        assert await reader.read() == sent[::-1]
        writer.close()


async def test_without_a_target_the_client_is_reset() -> None:
    """As it would be by the target, not told that all was said."""
    async with relayed(None) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_reset_is_passed_on() -> None:
    """A client that aborts is no client that has finished."""
    seen: asyncio.Future[BaseException | bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        try:
            seen.set_result(await reader.read())
        except ConnectionError as error:
            seen.set_result(error)
        writer.close()

    async with relayed(listen) as port:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"hi")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, relay._ABORT)
        client.close()
        assert isinstance(await seen, ConnectionResetError)


async def test_one_that_fails_leaves_the_others_alone() -> None:
    """Fifty connections at once, every second one aborted in the middle."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with relayed(echo) as port:
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for number, (reader, writer) in enumerate(pairs):
            writer.write(b"first")
            assert await reader.readexactly(5) == b"first"
            if number % 2:
                writer.transport.abort()
        for reader, writer in pairs[::2]:
            writer.write(b"second")
            assert await reader.readexactly(6) == b"second"
            writer.close()


async def test_connections_beyond_the_bound_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third of two is accepted by the kernel, and answered once another has ended."""
    monkeypatch.setattr(relay, "most_connections", lambda: 2)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()
        writer.close()

    async with relayed(greet) as port:
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, _ in streams[:2]:
            assert await reader.readexactly(5) == b"hello"
        third = asyncio.create_task(streams[2][0].readexactly(5))
        assert not (await asyncio.wait([third], timeout=0.2))[0]
        streams[0][1].close()
        assert await third == b"hello"
        for _, writer in streams[1:]:
            writer.close()


async def test_datagrams_find_their_way_back_and_old_clients_make_room() -> None:
    """Each client has its own answers; of one too many the oldest is forgotten, and served again when it asks."""
    loop = asyncio.get_running_loop()
    opened: list[socket.socket] = []

    class Server(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
            transport.sendto(b"<" + data + b">", client)

    transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    target_address = transport.get_extra_info("sockname")

    async def dial(_client: socket.socket) -> socket.socket:
        target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        target.connect(target_address)
        opened.append(target)
        return target

    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    task = asyncio.create_task(relay.datagrams(receiver, dial, 4))
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(6)]
    try:
        async with asyncio.timeout(DEADLINE):
            for again in range(2):
                for number, client in enumerate(clients):
                    client.connect(receiver.getsockname())
                    client.send(f"{number}".encode())
                    assert await loop.sock_recv(client, 100) == f"<{number}>".encode()
                assert len([s for s in opened if s.fileno() >= 0]) == 4
                assert len(opened) == 6 * (again + 1)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        transport.close()
        for client in (*clients, receiver):
            client.close()
    assert all(s.fileno() < 0 for s in opened)
