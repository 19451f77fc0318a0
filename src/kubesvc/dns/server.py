"""The sockets: UDP with a fast path for plain questions, and a bound on what is under way. TCP is `tcp`'s.

    datagrams ──► header plain? ──► one look-up ──► head and body written around the question ─┬► sent back together
        └───────► resolver.local ──► an answer, written in its place too                       ┘  odd, cut, turned
                      └────────────► resolver.remote, as a task                                   an upstream's

One wake-up drains up to BATCH datagrams with two system calls (`datagrams`), so that TCP, tasks and the watches get
their turn under load.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any

from kubesvc.dns import wire
from kubesvc.dns.answers import Answers
from kubesvc.dns.clients import Namespaces
from kubesvc.dns.datagrams import SLOT, Datagrams
from kubesvc.dns.entry import Entry
from kubesvc.dns.metrics import Counts
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.tcp import TcpServer

log = logging.getLogger(__name__)

BATCH = 64  # datagrams a wake-up
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
        clients: Namespaces = MappingProxyType({}),
    ) -> None:
        self._answers = answers
        self._resolver = resolver
        self._udp_sockets = tuple(udp_sockets)
        self._clients = clients  # packed source address -> namespace, of those whose search path is completed
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts = Counts()
        self._batch = Datagrams(BATCH)
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
        began = perf_counter()
        batch, descriptor = self._batch, udp.fileno()
        try:
            count = batch.receive(descriptor)
        except OSError as error:  # an ICMP error of an earlier send, reported here
            log.debug("UDP: %s", error)
            return
        region, lengths, sizes = batch.region, batch.lengths, batch.sizes
        find, namespaces = self._answers.find, self._clients
        look_up = (self._answers.table if self._answers.synced else {}).get
        plain, with_opt, our_opt = wire.QUERY_PLAIN, wire.QUERY_OPT, wire.OUR_OPT
        seen = self.counts.fast
        first, at, length_at = 0, 0, batch.AT  # slots from `first` on wait to be sent
        sample, others = -1, 0
        for i in range(count):
            end = at + lengths[length_at]
            header = region[at + 2 : at + 12]
            answered: Entry | None = None
            if header == plain:
                question = region[at + 12 : end]
                found = look_up(question.lower()) or find(question, namespaces.get(batch.packed(i), b""))
                if isinstance(found, Entry) and found.quick:
                    answered = found
                    region[at + 2 : at + 12] = found.head
                    after = end + len(found.body)
                    region[end:after] = found.body
            elif header == with_opt and region[end - 11 : end - 8] == _OPT_START and region[end - 6 : end] == _OPT_END:
                end -= _TAIL
                question = region[at + 12 : end]
                found = look_up(question.lower()) or find(question, namespaces.get(batch.packed(i), b""))
                if isinstance(found, Entry) and found.quick:
                    answered = found
                    region[at + 2 : at + 12] = found.head_opt
                    after = end + len(found.body) + _TAIL
                    region[end:after] = found.body + our_opt
            if answered is not None:
                seen[question[-4:-2] + answered.head[1:2]] += 1
                sizes[2 * i + 1] = after - at
            elif not self._other(udp, i):
                batch.send(descriptor, first, i)
                sample, others = i - 1 if i > first else sample, others + 1
                first = i + 1
            at += SLOT
            length_at += batch.STEP
        batch.send(descriptor, first, count)
        sample = count - 1 if first < count else sample
        if sample >= 0:
            each = (perf_counter() - began) / count
            request, response = lengths[sample * batch.STEP + batch.AT], sizes[2 * sample + 1]
            self.counts.batch(count - others, each, request, response)

    def _other(self, udp: socket.socket, i: int) -> bool:
        """Answer slot `i` the slow way. True: the answer lies in the slot, to be sent with the others."""
        batch = self._batch
        data, client = batch.data(i), batch.packed(i)
        namespace = self._clients.get(client, b"")
        try:
            found = self._resolver.local(data, tcp=False, namespace=namespace, client=client)
        except Exception:  # one question must not cost the others theirs
            self.counts.failed += 1
            log.exception("a question can't be answered: %r", data)
            return False
        if isinstance(found, wire.Query):
            if len(self._tasks) < MAX_UNDER_WAY:
                self._begin(self._remote(udp, data, found, batch.peer(i), namespace))
                return False
            self.counts.failed += 1
            found = wire.error(data, wire.SERVFAIL, found.question)
        elif isinstance(found, bytes):
            self.counts.answered("udp", found, forwarded=False)
        else:
            return False
        if len(found) > SLOT:
            self._send(udp, found, batch.peer(i))
            self.counts.sized("udp", len(data), len(found), forwarded=False)
            return False
        batch.region[i * SLOT : i * SLOT + len(found)] = found
        batch.sizes[2 * i + 1] = len(found)
        return True

    def _send(self, udp: socket.socket, answer: bytes, peer: Any) -> None:
        try:
            udp.sendto(answer, peer)
        except OSError as error:
            log.debug("UDP to %s: %s", peer, error)

    async def _remote(self, udp: socket.socket, data: bytes, query: wire.Query, peer: Any, namespace: bytes) -> None:
        began = perf_counter()
        try:
            answer = await self._resolver.remote(data, query, tcp=False, namespace=namespace)
        except Exception:  # the top of a task
            self.counts.failed += 1
            log.exception("%s: can't be answered", wire.to_text(query.name))
            answer = wire.error(data, wire.SERVFAIL, query.question)
        self.counts.answered("udp", answer, forwarded=True)
        self.counts.timed(perf_counter() - began, forwarded=True)
        self.counts.sized("udp", len(data), len(answer), forwarded=True)
        self._send(udp, answer, peer)

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
