"""Connections that the balancer ends itself and begins anew to a node port: with a PROXY header, or after TLS."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from kubesvc.client.pemfiles import keep_fresh
from kubesvc.kernel import relay
from kubesvc.loadbalancer.desk.proxyprotocol import header
from kubesvc.loadbalancer.providers.desk.model import Balancer, Listener, Target

log = logging.getLogger(__name__)

BACKLOG = 512
_BLOCK = 1 << 16


class Forwarders:
    """One for each listener of mode proxy. `choose` gives the nodes that a new connection may go to; `certificate` is
    what TLS listeners show, its key beside it (.key)."""

    def __init__(self, choose: Callable[[Balancer, Listener], Sequence[Target]], certificate: Path) -> None:
        self._choose, self._certificate = choose, certificate
        self._running: dict[tuple[str, Listener], tuple[socket.socket, asyncio.Task[None]]] = {}
        self._balancers: dict[str, Balancer] = {}  # address -> balancer

    def keep(self, balancers: Iterable[Balancer]) -> None:
        """Exactly those that these balancers need. The connections of one that changes are cut."""
        known = self._balancers = {balancer.address: balancer for balancer in balancers}
        wanted = {(b.address, found) for b in known.values() for found in b.listeners if found.mode == "proxy"}
        for key in self._running.keys() - wanted:
            listening, task = self._running.pop(key)
            task.cancel()
            listening.close()
        for key in wanted - self._running.keys():
            try:
                self._running[key] = self._start(*key)
            except OSError as error:
                log.warning("can't listen on %s port %d: %s", key[0], key[1].port, error)

    def _start(self, address: str, listener: Listener) -> tuple[socket.socket, asyncio.Task[None]]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, listener.port))
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        work = (
            self._secured(listening, address, listener) if listener.tls else self._plain(listening, address, listener)
        )
        return listening, asyncio.create_task(work)

    async def _plain(self, listening: socket.socket, address: str, listener: Listener) -> None:
        async def dial(client: socket.socket) -> socket.socket:
            return await self._connect(address, listener, client.getpeername(), client.getsockname())

        await relay.connections(listening, dial)

    async def _secured(self, listening: socket.socket, address: str, listener: Listener) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ends = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
            try:
                target = await asyncio.open_connection(sock=await self._connect(address, listener, *ends))
            except OSError as error:
                log.debug("no connection to pass on to: %s", error)
                writer.transport.abort()
                return
            await asyncio.gather(_copy(reader, target[1]), _copy(target[0], writer))

        context, key = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), self._certificate.with_suffix(".key")
        try:
            context.load_cert_chain(self._certificate, key)
        except OSError as error:
            log.warning("%s port %d ends TLS, and has no certificate: %s", address, listener.port, error)
            return
        async with (
            await asyncio.start_server(serve, sock=listening, ssl=context) as server,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(keep_fresh(context, self._certificate, key))
            await server.serve_forever()

    async def _connect(
        self, address: str, listener: Listener, source: tuple[str, int], destination: tuple[str, int]
    ) -> socket.socket:
        """To one of the nodes, with the header where one is asked for. Raises OSError."""
        balancer = self._balancers.get(address)
        nodes = list(self._choose(balancer, listener)) if balancer else []
        if not nodes:
            raise OSError(f"{address}:{listener.port}: no node is healthy")
        loop = asyncio.get_running_loop()
        target = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(target, (random.choice(nodes).address, listener.node_port))
            if listener.proxy_protocol:
                await loop.sock_sendall(target, header(source, destination))
        except BaseException:
            target.close()
            raise
        return target


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one end is through; TLS knows no half-closed connection, so that its other half goes, too."""
    with suppress(OSError):
        while data := await reader.read(_BLOCK):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
            await writer.wait_closed()
