"""The sockets: UDP with a fast path for plain questions, and a bound on what is under way. TCP is `tcp`'s.

    datagram ──► header plain? ──► one look-up ──► id + head + question + body ──► send          the fast path
        └──────► resolver.local ──► an answer, sent at once                                      odd, cut, turned
                     └────────────► resolver.remote, as a task                                   an upstream's

One wake-up drains up to BATCH datagrams, so that TCP, tasks and the watches get their turn under load. recvmmsg and
sendmmsg (through ctypes) were tried: a fifth more where 64 datagrams wait, a tenth less where few do. Not worth it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kubesvc.dns import wire
from kubesvc.dns.answers import Answers
from kubesvc.dns.entry import Entry
from kubesvc.dns.metrics import Counts
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.tcp import TcpServer

log = logging.getLogger(__name__)

BATCH = 64  # datagrams a wake-up
RECEIVE = 4096  # bytes; a query is never longer
MAX_UNDER_WAY = 1000  # questions waiting for upstreams; beyond them SERVFAIL
BUFFER = 1 << 20  # bytes of kernel buffer for bursts

_TAIL = wire.OPT_SIZE
_OPT_START = b"\0\0\x29"  # root, type OPT
_OPT_END = b"\0\0\0\0\0\0"  # no extended rcode, version 0, no flags, no options


class Server:
    """Answers on sockets made by others. `start` begins, `stop` leaves them open."""

    def __init__(
        self,
        answers: Answers,
        resolver: Resolver,
        udp_sockets: Sequence[socket.socket],
        tcp_sockets: Sequence[socket.socket],
        clients: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        self._answers = answers
        self._resolver = resolver
        self._udp_sockets = tuple(udp_sockets)
        self._clients = clients  # source address -> namespace, of those whose search path is completed
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts = Counts()
        self.tcp = TcpServer(resolver, tcp_sockets, clients, self.counts)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for udp in self._udp_sockets:
            udp.setblocking(False)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            loop.add_reader(udp.fileno(), self._drain, udp)
        await self.tcp.start()

    async def stop(self) -> None:
        loop = asyncio.get_running_loop()
        for udp in self._udp_sockets:
            loop.remove_reader(udp.fileno())
        await self.tcp.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ── UDP ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _drain(self, udp: socket.socket) -> None:
        """Answer what waits on `udp`, at most BATCH datagrams. Local names on purpose: this is the hot loop."""
        receive, send, find = udp.recvfrom, udp.sendto, self._answers.find
        look_up = (self._answers.table if self._answers.synced else {}).get
        plain, with_opt, our_opt = wire.QUERY_PLAIN, wire.QUERY_OPT, wire.OUR_OPT
        namespace = self._clients.get
        seen = self.counts.fast
        try:
            for _ in range(BATCH):
                data, peer = receive(RECEIVE)
                header = data[2:12]
                if header == plain:
                    question = data[12:]
                    found = look_up(question.lower()) or find(question, namespace(peer[0], b""))
                    if isinstance(found, Entry) and found.quick:
                        seen[question[-4:-2] + found.head[1:2]] += 1
                        send(data[:2] + found.head + question + found.body, peer)
                        continue
                elif header == with_opt and data[-11:-8] == _OPT_START and data[-6:] == _OPT_END:
                    question = data[12:-_TAIL]
                    found = look_up(question.lower()) or find(question, namespace(peer[0], b""))
                    if isinstance(found, Entry) and found.quick:
                        seen[question[-4:-2] + found.head[1:2]] += 1
                        send(data[:2] + found.head_opt + question + found.body + our_opt, peer)
                        continue
                self._other(udp, data, peer)
        except BlockingIOError:  # drained, or the send buffer is full: the client asks again
            pass
        except OSError as error:  # an ICMP error of an earlier send, reported here
            log.debug("UDP: %s", error)

    def _other(self, udp: socket.socket, data: bytes, peer: Any) -> None:
        namespace = self._clients.get(peer[0], b"")
        found = self._resolver.local(data, tcp=False, namespace=namespace, client=peer[0])
        if isinstance(found, bytes):
            self.counts.slow("udp", found, forwarded=False)
            udp.sendto(found, peer)
        elif isinstance(found, wire.Query):
            if len(self._tasks) >= MAX_UNDER_WAY:
                self.counts.failed += 1
                udp.sendto(wire.error(data, wire.SERVFAIL, found.question), peer)
                return
            self._begin(self._remote(udp, data, found, peer, namespace))

    async def _remote(self, udp: socket.socket, data: bytes, query: wire.Query, peer: Any, namespace: bytes) -> None:
        try:
            answer = await self._resolver.remote(data, query, tcp=False, namespace=namespace)
        except Exception:  # the top of a task
            self.counts.failed += 1
            log.exception("%s: can't be answered", wire.to_text(query.name))
            answer = wire.error(data, wire.SERVFAIL, query.question)
        self.counts.slow("udp", answer, forwarded=True)
        try:
            udp.sendto(answer, peer)
        except OSError as error:
            log.debug("UDP to %s: %s", peer, error)

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
