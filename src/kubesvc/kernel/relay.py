"""Connections and datagrams passed on from one socket to another, for where no packet can be rewritten: between the
host's localhost and a node's, and from ::1.

    client ──► listener ──accept──► dial() ──► target        TCP: each direction ends by itself, a reset is passed on
    client ──► receiver ──first datagram──► dial() ──► target    UDP: a socket for each client, until it is idle

Who listens and who dials may live in different network namespaces. Memory and descriptors stay bounded: nothing is
read that isn't written, connections beyond a share of the process's descriptors wait in the listener's queue, and the
clients of a UDP port are counted.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)

Dial = Callable[[socket.socket], Awaitable[socket.socket]]
"""From the client's socket to a connected, non-blocking one to the target. Raises OSError, TimeoutError."""

_Address = tuple[Any, ...]  # as recvfrom gives it

CONNECT_SECONDS = 10.0
_BLOCK = 1 << 16
_REST = 0.1  # seconds after an accept() that failed, as it does while descriptors are short
_IDLE = 60.0  # seconds until a UDP client is forgotten
_CLIENTS = 1024  # of one UDP port; the one that was silent longest makes room
_ABORT = struct.pack("ii", 1, 0)  # struct linger: close() sends RST


# ── TCP ──


async def connections(listener: socket.socket, dial: Dial) -> None:
    """Pass on every connection that `listener` accepts, until cancelled."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    room = asyncio.Semaphore(most_connections())
    async with asyncio.TaskGroup() as group:
        while True:
            await room.acquire()
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("a connection can't be accepted: %s", error)
                room.release()
                await asyncio.sleep(_REST)
                continue
            task = group.create_task(_connection(client, dial))
            task.add_done_callback(lambda _done: room.release())


def most_connections() -> int:
    """How many one listener has at a time, of two descriptors each: a quarter of what the process may have."""
    return max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)


async def _connection(client: socket.socket, dial: Dial) -> None:
    """One that fails takes none of the others along."""
    try:
        await _pass_on(client, dial)
    except Exception:
        log.exception("a connection failed")


async def _pass_on(client: socket.socket, dial: Dial) -> None:
    """From the client's connection to both ends' last byte. Without a target the client is reset, as by the target."""
    client.setblocking(False)
    with client:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                target = await dial(client)
        except (OSError, TimeoutError) as error:
            log.debug("no connection to pass on to: %s", error or "timed out")
            _reset(client)
            return
        with target:
            for end in (client, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copy(client, target))
                    group.create_task(_copy(target, client))
            except* OSError:
                _reset(client)
                _reset(target)


async def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Until `source` has said all, which `sink` then is told. Raises OSError."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _BLOCK):
        await loop.sock_sendall(sink, data)
    with suppress(OSError):  # the other end may have closed meanwhile
        sink.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)


# ── UDP ──


async def datagrams(receiver: socket.socket, dial: Dial, clients: int = _CLIENTS) -> None:
    """Pass on every datagram that `receiver` gets, and the answers to whom they are for, until cancelled. Of more than
    `clients` the one that was silent longest is forgotten."""
    relay = _Datagrams(receiver, dial, clients)
    loop = asyncio.get_running_loop()
    receiver.setblocking(False)
    loop.add_reader(receiver, relay.receive)
    try:
        while True:
            await asyncio.sleep(_IDLE / 4)
            relay.forget_idle(loop.time())
    finally:
        loop.remove_reader(receiver)
        relay.close()


class _Datagrams:
    """The clients of one port, those heard last at the end."""

    def __init__(self, receiver: socket.socket, dial: Dial, clients: int) -> None:
        self._receiver, self._dial, self._most = receiver, dial, clients
        self._targets: OrderedDict[_Address, tuple[socket.socket, float]] = (
            OrderedDict()
        )  # client -> socket, last heard
        self._dialling: dict[_Address, bytes] = {}  # client -> its newest datagram
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self) -> None:
        with suppress(BlockingIOError, OSError):
            while True:
                data, client = self._receiver.recvfrom(_BLOCK)
                self._pass_on(data, client)

    def _pass_on(self, data: bytes, client: _Address) -> None:
        found = self._targets.get(client)
        if found is not None:
            self._heard(client, found[0])
            with suppress(OSError):  # lost, as datagrams may be
                found[0].send(data)
            return
        known = client in self._dialling
        self._dialling[client] = data
        if not known:
            task = asyncio.create_task(self._open(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, client: _Address) -> None:
        try:
            target = await self._dial(self._receiver)
        except OSError as error:
            log.debug("no socket to pass datagrams on by: %s", error)
            return
        finally:
            data = self._dialling.pop(client)
        if len(self._targets) >= self._most:
            self._forget(next(iter(self._targets)))
        self._heard(client, target)
        asyncio.get_running_loop().add_reader(target, self._answer, target, client)
        with suppress(OSError):
            target.send(data)

    def _answer(self, target: socket.socket, client: _Address) -> None:
        try:
            while True:
                data = target.recv(_BLOCK)
                self._heard(client, target)
                with suppress(OSError):
                    self._receiver.sendto(data, client)
        except BlockingIOError:
            return
        except OSError:  # refused: the Service has no endpoint now; the next datagram is tried afresh
            self._forget(client)

    def _heard(self, client: _Address, target: socket.socket) -> None:
        self._targets[client] = (target, asyncio.get_running_loop().time())
        self._targets.move_to_end(client)

    def forget_idle(self, now: float) -> None:
        for client in [c for c, (_, heard) in self._targets.items() if now - heard > _IDLE]:
            self._forget(client)

    def _forget(self, client: _Address) -> None:
        target, _ = self._targets.pop(client)
        asyncio.get_running_loop().remove_reader(target)
        target.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for client in list(self._targets):
            self._forget(client)
