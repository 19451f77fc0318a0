"""Answers ARP and NDP for the addresses this node is elected for, on one interface.

An address is never a local one: no packet for it is ever delivered to the node itself, the proxy's rules turn it
before the kernel would ask. So the kernel doesn't answer for it, and we do, from packet sockets:

    neighbour ── who has 172.29.7.200? ──► eth0 ──► packet socket ──► claimed? ──► "172.29.7.200 is at <eth0's MAC>"

Answers carry the interface's own MAC, so neighbours, bridges and switches see nothing odd. The interface may go and
come back: the sockets are then opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from kubesvc.api.balancing import Address
from kubesvc.loadbalancer.announce import arp, ndp, packets

log = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 0.1, 5.0  # seconds between two attempts to open a socket


class Ear:
    """A packet socket that is opened again whenever it fails. `hear` is given every frame, with the socket's MAC."""

    def __init__(self, what: str, interface: str, open_: Callable[[str], socket.socket]) -> None:
        self.open = asyncio.Event()
        self.mac = arp.NOBODY
        self._what, self._interface, self._open = what, interface, open_
        self._socket: socket.socket | None = None

    async def run(self, hear: Callable[[bytes], None], opened: Callable[[], None]) -> None:
        """Until cancelled. An interface that is missing or goes away is waited for."""
        loop, delay = asyncio.get_running_loop(), FIRST_DELAY
        while True:
            began = loop.time()
            try:
                self._socket = self._open(self._interface)
                self.mac = self._socket.getsockname()[4]
                self.open.set()
                opened()
                await self._listen(self._socket, hear)
            except OSError as error:
                # A socket opens on an interface that is down, too, and fails at its first use: no new start then.
                delay = FIRST_DELAY if loop.time() - began > LAST_DELAY else delay
                said = f"{self._interface}: no {self._what}: {error}; trying again in {delay:.1f} s"
                log.warning("%s", said)
            finally:
                self.open.clear()
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)

    def say(self, frame: bytes) -> None:
        """Send, if there is a socket. Raises nothing: a full queue, or a link that is down; the reader sees that."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(frame)

    async def _listen(self, listener: socket.socket, hear: Callable[[bytes], None]) -> None:
        """Serve until the socket fails. Raises OSError."""
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()

        def readable() -> None:
            try:
                while True:
                    hear(listener.recv(2048))
            except BlockingIOError:
                return
            except OSError as error:
                if not failed.done():
                    failed.set_exception(error)

        loop.add_reader(listener, readable)
        try:
            await failed
        finally:
            loop.remove_reader(listener)


class Responder:
    """Answers for `claimed` while `run` runs. `claim` may be called at any time."""

    def __init__(self, interface: str, *, announcements: int, interval: float) -> None:
        self.claimed: frozenset[Address] = frozenset()
        self.interface = interface
        self.listening = asyncio.Event()
        self._announcements, self._interval = announcements, interval  # times, seconds apart
        self._arp = Ear("answers to ARP", interface, packets.open_arp)
        self._ndp = Ear("answers to neighbour solicitations", interface, packets.open_ndp)
        self._groups: packets.Groups | None = None
        self._contested: set[Address] = set()
        """Claimed, and announced by another since: neighbours must be told again when we keep it."""
        self._announcing: set[asyncio.Task[None]] = set()

    def claim(self, addresses: frozenset[Address]) -> None:
        """Answer for these and no others from now on; those gained are announced."""
        gained, lost = addresses - self.claimed, self.claimed - addresses
        self.claimed = addresses
        self._join()
        gained |= self._contested & addresses
        self._contested.clear()
        if gained:
            log.info("%s: announcing %s", self.interface, _listed(gained))
            self._announce(gained)
        if lost:
            log.info("%s: no longer announcing %s", self.interface, _listed(lost))

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._arp.run(self._hear_arp, lambda: self._opened(4)))
                group.create_task(self._ndp.run(self._hear_ndp, lambda: self._opened(6)))
        finally:
            self.listening.clear()
            for task in self._announcing:
                task.cancel()
            if self._groups is not None:
                self._groups.close()

    def _opened(self, version: int) -> None:
        if version == 6:
            if self._groups is not None:
                self._groups.close()
            self._groups = packets.Groups(self.interface)
            self._join()
        if self._arp.open.is_set() and self._ndp.open.is_set():
            self.listening.set()
        self._announce(frozenset(a for a in self.claimed if a.version == version))

    def _join(self) -> None:
        if self._groups is not None:
            self._groups.become({ndp.solicited_node(a) for a in self.claimed if isinstance(a, IPv6Address)})

    def _hear_arp(self, frame: bytes) -> None:
        """Requests for a claimed address are answered; somebody's announcement of it is no question."""
        question = arp.ArpFrame.from_wire(frame)
        if question is None or question.operation != arp.ARPOP_REQUEST or question.target_ip not in self.claimed:
            return
        if question.sender_ip == question.target_ip:
            self._contested.add(question.target_ip)
        else:
            self._arp.say(arp.reply(question, self._arp.mac).to_wire())

    def _hear_ndp(self, frame: bytes) -> None:
        question = ndp.Solicitation.from_wire(frame)
        if question is not None and question.target in self.claimed:
            self._ndp.say(ndp.reply(question, self._ndp.mac))

    def _announce(self, addresses: frozenset[Address]) -> None:
        if addresses and (self._arp.open.is_set() or self._ndp.open.is_set()):
            task = asyncio.get_running_loop().create_task(self._tell(addresses))
            self._announcing.add(task)
            task.add_done_callback(self._announcing.discard)

    async def _tell(self, addresses: frozenset[Address]) -> None:
        for turn in range(self._announcements):
            if turn:
                await asyncio.sleep(self._interval)
            for address in addresses & self.claimed:
                if isinstance(address, IPv4Address):
                    self._arp.say(arp.announcement(address, self._arp.mac).to_wire())
                else:
                    self._ndp.say(ndp.announcement(address, self._ndp.mac))


def _listed(addresses: Iterable[Address]) -> str:
    return ", ".join(map(str, sorted(addresses, key=lambda a: (a.version, int(a)))))
