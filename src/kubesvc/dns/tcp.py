"""DNS over TCP: many questions on one connection, answered as they are ready (RFC 7766).

    connection ──► question ──► answer from the zone ──► written at once
                       └──────► an upstream's, as a task ──► written when it comes, perhaps after later ones

A client that is silent for IDLE seconds is hung up on, and so is one that doesn't take its answers. Bounds: connections
altogether and of one address, questions of one connection that wait for upstreams (then its next isn't read).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

from kubesvc.dns import wire
from kubesvc.dns.clients import Namespaces, packed
from kubesvc.dns.metrics import Counts
from kubesvc.dns.resolver import Resolver

log = logging.getLogger(__name__)

IDLE = 10.0  # seconds
MAX_CONNECTIONS = 512
MAX_OF_ONE = 64  # connections from one address
MAX_WAITING = 64  # questions of one connection that wait for upstreams
UNSENT = 1 << 18  # bytes of answers that may wait for a slow client


class TcpServer:
    """Answers on listening sockets made by others; `stop` leaves them open."""

    def __init__(
        self,
        resolver: Resolver,
        sockets: Sequence[socket.socket],
        clients: Namespaces,
        counts: Counts,
        *,
        idle: float = IDLE,
    ) -> None:
        self._resolver = resolver
        self._sockets = tuple(sockets)
        self._clients = clients  # packed source address -> namespace, of those whose search path is completed
        self._counts = counts
        self._idle = idle
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._of: Counter[str] = Counter()  # address -> connections

    async def start(self) -> None:
        for listening in self._sockets:
            # A copy of the descriptor: the event loop closes what it is given.
            self._servers.append(await asyncio.start_server(self._connected, sock=listening.dup()))

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        peer = writer.get_extra_info("peername")
        if task is None or not peer or len(self._connections) >= MAX_CONNECTIONS or self._of[peer[0]] >= MAX_OF_ONE:
            writer.close()
            return
        self._connections.add(task)
        self._of[peer[0]] += 1
        try:
            await _Connection(self, reader, writer, packed(peer[0])).run()
        except (OSError, EOFError, TimeoutError):  # the client left, or has nothing more to ask
            pass
        except Exception:  # the top of a task
            self._counts.failed += 1
            log.exception("TCP: a question can't be answered")
        finally:
            self._connections.discard(task)
            self._of[peer[0]] -= 1
            if not self._of[peer[0]]:
                del self._of[peer[0]]
            writer.close()


class _Connection:
    def __init__(
        self, server: TcpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: bytes
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._client = client  # packed address
        self._namespace = server._clients.get(client, b"")
        self._waiting: set[asyncio.Task[None]] = set()
        writer.transport.set_write_buffer_limits(high=UNSENT)

    async def run(self) -> None:
        """Answer until the client leaves or is silent for too long. Raises OSError, EOFError, TimeoutError."""
        resolver = self._server._resolver
        try:
            while True:
                data = await self._question()
                began = perf_counter()
                found = resolver.local(data, tcp=True, namespace=self._namespace, client=self._client)
                if found is None:
                    return
                if isinstance(found, wire.Query):
                    while len(self._waiting) >= MAX_WAITING:
                        await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)
                    task = asyncio.create_task(self._remote(data, found, began))
                    self._waiting.add(task)
                    task.add_done_callback(self._waiting.discard)
                elif isinstance(found, bytes):
                    await self._send(data, found, began, forwarded=False)
                else:
                    async for answer in found:  # a whole zone
                        await self._send(data, answer, began, forwarded=False)
        finally:
            for task in list(self._waiting):
                task.cancel()
            await asyncio.gather(*self._waiting, return_exceptions=True)

    async def _question(self) -> bytes:
        """The next message; the time it may take begins anew while answers are still being waited for."""
        while True:
            try:
                async with asyncio.timeout(self._server._idle):
                    size = int.from_bytes(await self._reader.readexactly(2), "big")
                    return await self._reader.readexactly(size)
            except TimeoutError:
                if not self._waiting:
                    raise

    async def _remote(self, data: bytes, query: wire.Query, began: float) -> None:
        try:
            answer = await self._server._resolver.remote(data, query, tcp=True, namespace=self._namespace)
        except Exception:  # the top of a task
            self._server._counts.failed += 1
            log.exception("%s: can't be answered", wire.to_text(query.name))
            answer = wire.error(data, wire.SERVFAIL, query.question)
        try:
            await self._send(data, answer, began, forwarded=True)
        except (OSError, TimeoutError):
            self._writer.close()

    async def _send(self, data: bytes, answer: bytes, began: float, *, forwarded: bool) -> None:
        counts = self._server._counts
        counts.answered("tcp", answer, forwarded=forwarded)
        counts.timed(perf_counter() - began, forwarded=forwarded)
        counts.sized("tcp", len(data), len(answer), forwarded=forwarded)
        self._writer.write(len(answer).to_bytes(2, "big") + answer)
        async with asyncio.timeout(self._server._idle):
            await self._writer.drain()
