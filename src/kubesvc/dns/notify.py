"""Telling secondaries that a zone has changed (NOTIFY, RFC 1996): they fetch it now, and not when its SOA says.

Several changes within SETTLE seconds are one message. It is repeated until it is answered, TRIES times; a secondary
that never answers still asks by itself.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Iterable, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode

from kubesvc.dns import upstreams, wire
from kubesvc.dns.config import SocketFactory
from kubesvc.dns.zones import Zone

log = logging.getLogger(__name__)

SETTLE = 0.2  # seconds
TRIES = 4
FIRST_WAIT = 1.0  # seconds for an answer; twice as long at each try


class Notifier:
    """`secondaries` are ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT. Raises ValueError for one that isn't."""

    def __init__(self, secondaries: Iterable[str], socket_factory: SocketFactory, *, wait: float = FIRST_WAIT) -> None:
        self._secondaries = [upstreams.endpoint(text) for text in secondaries]
        self._socket_factory = socket_factory
        self._wait = wait
        self._changed: dict[bytes, None] = {}
        self._wake = asyncio.Event()

    def changed(self, zones: Sequence[Zone]) -> None:
        """These zones have a new serial."""
        if self._secondaries and zones:
            self._changed.update(dict.fromkeys(zone.name for zone in zones))
            self._wake.set()

    async def run(self) -> None:
        """Tell of changes until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                await asyncio.sleep(SETTLE)
                self._wake.clear()
                zones, self._changed = list(self._changed), {}
                for address, port in self._secondaries:
                    for zone in zones:
                        group.create_task(self._tell(address, port, zone))

    async def _tell(self, address: str, port: int, zone: bytes) -> None:
        message = dns.message.make_query(dns.name.from_wire(zone, 0)[0], "SOA", flags=dns.flags.AA)
        message.set_opcode(dns.opcode.NOTIFY)
        message.id = secrets.randbits(16)
        wait = self._wait
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(wait):
                    await self._exchange(address, port, message)
                return
            except (OSError, TimeoutError) as error:
                trouble = error
            wait *= 2
        log.warning(
            "%s port %d does not answer NOTIFY of %s: %s", address, port, wire.to_text(zone), trouble or "silent"
        )

    async def _exchange(self, address: str, port: int, message: dns.message.Message) -> None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self._socket_factory(family, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect((address, port))
            await loop.sock_sendall(udp, message.to_wire())
            while True:
                reply = await loop.sock_recv(udp, 4096)
                try:
                    if message.is_response(dns.message.from_wire(reply)):
                        return
                except dns.exception.DNSException:
                    continue
