"""Answers ARP for the addresses this node is elected for, on one interface.

The address is never a local one: no packet for it is ever delivered to the node itself, the proxy's rules turn it
before the kernel would ask. So the kernel doesn't answer for it, and we do, from a packet socket:

    neighbour ── who has 172.29.7.200? ──► eth0 ──► packet socket ──► claimed? ──► "172.29.7.200 is at <eth0's MAC>"

Answers carry the interface's own MAC, so neighbours, bridges and switches see nothing odd. The socket belongs to the
network namespace it was opened in. The interface may go and come back: the socket is then opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address

from kubesvc.loadbalancer.announce import arp

log = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 0.1, 5.0  # seconds between two attempts to open the socket


def open_socket(interface: str) -> socket.socket:
    """A socket for the ARP packets of `interface`, in the calling thread's namespace. Raises OSError."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(arp.ETH_P_ARP))
    try:
        opened.bind((interface, arp.ETH_P_ARP))
    except OSError:
        opened.close()
        raise
    return opened


class Responder:
    """Answers for `claimed` while `run` runs. `claim` may be called at any time."""

    def __init__(self, interface: str, *, announcements: int, interval: float) -> None:
        self.claimed: frozenset[IPv4Address] = frozenset()
        self.listening = asyncio.Event()
        self._interface = interface
        self._announcements, self._interval = announcements, interval  # times, seconds apart
        self._socket: socket.socket | None = None
        self._mac = arp.NOBODY
        self._announcing: set[asyncio.Task[None]] = set()

    def claim(self, addresses: frozenset[IPv4Address]) -> None:
        """Answer for these and no others from now on; those gained are announced."""
        gained, lost = addresses - self.claimed, self.claimed - addresses
        self.claimed = addresses
        if gained:
            log.info("%s: announcing %s", self._interface, _listed(gained))
            self._announce(gained)
        if lost:
            log.info("%s: no longer announcing %s", self._interface, _listed(lost))

    async def run(self) -> None:
        """Until cancelled. An interface that is missing or goes away is waited for."""
        loop, delay = asyncio.get_running_loop(), FIRST_DELAY
        try:
            while True:
                began = loop.time()
                try:
                    self._socket = open_socket(self._interface)
                    self._mac = self._socket.getsockname()[4]
                    self.listening.set()
                    self._announce(self.claimed)
                    await self._answer(self._socket)
                except OSError as error:
                    # A socket opens on an interface that is down, too, and fails at its first use: no new start then.
                    delay = FIRST_DELAY if loop.time() - began > LAST_DELAY else delay
                    log.warning("%s: can't answer ARP: %s; trying again in %.1f s", self._interface, error, delay)
                finally:
                    self._close()
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_DELAY)
        finally:
            for task in self._announcing:
                task.cancel()

    async def _answer(self, listener: socket.socket) -> None:
        """Serve until the socket fails. Raises OSError."""
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()
        loop.add_reader(listener, self._readable, listener, failed)
        try:
            await failed
        finally:
            loop.remove_reader(listener)

    def _readable(self, listener: socket.socket, failed: asyncio.Future[None]) -> None:
        try:
            while True:
                question = arp.ArpFrame.from_wire(listener.recv(2048))
                if question is not None and self._is_ours(question):
                    listener.send(arp.reply(question, self._mac).to_wire())
        except BlockingIOError:
            return
        except OSError as error:
            if not failed.done():
                failed.set_exception(error)

    def _is_ours(self, question: arp.ArpFrame) -> bool:
        """A request for a claimed address, but not somebody's announcement of it: that is no question."""
        return (
            question.operation == arp.ARPOP_REQUEST
            and question.target_ip in self.claimed
            and question.sender_ip != question.target_ip
        )

    def _announce(self, addresses: frozenset[IPv4Address]) -> None:
        if addresses and self._socket is not None:
            task = asyncio.get_running_loop().create_task(self._tell(addresses))
            self._announcing.add(task)
            task.add_done_callback(self._announcing.discard)

    async def _tell(self, addresses: frozenset[IPv4Address]) -> None:
        for turn in range(self._announcements):
            if turn:
                await asyncio.sleep(self._interval)
            for address in addresses & self.claimed:
                if self._socket is None:
                    return
                with contextlib.suppress(OSError):  # a full queue, or a link that is down: the reader sees the latter
                    self._socket.send(arp.announcement(address, self._mac).to_wire())

    def _close(self) -> None:
        self.listening.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _listed(addresses: Iterable[IPv4Address]) -> str:
    return ", ".join(map(str, sorted(addresses)))
