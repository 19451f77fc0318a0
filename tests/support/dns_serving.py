"""The server on real sockets of 127.0.0.1 with the small cluster and an upstream, for tests."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import dns.asyncquery
import dns.message

from kubesvc.dns.answers import Answers
from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.server import Server
from kubesvc.dns.transfer import Transfers
from support.dns_upstream import Upstream, bound_pair, upstream
from support.dns_zone import endpoint, endpoint_slice, put, service, small_cluster

SVC = "default.svc.cluster.local."
DEADLINE = 60.0


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Running:
    server: Server
    answers: Answers
    above: Upstream
    clock: Clock
    port: int
    forwarder: Forwarder

    async def udp(self, name: str, kind: str = "A", *, payload: int | None = None) -> dns.message.Message:
        """The answer over UDP."""
        query = dns.message.make_query(name, kind, use_edns=payload is not None or None, payload=payload or 0)
        return await self.send(query)

    def try_for(self, seconds: float) -> None:
        """How long the upstream is waited for from now on, each time it is tried."""
        for pool in self.forwarder._pools.values():
            pool._try_seconds = seconds

    def silence(self) -> None:
        """The upstream says nothing from now on."""
        self.above.reply = lambda query: None
        self.try_for(0.2)

    def hold(self) -> asyncio.Queue[dns.message.Message]:
        """The upstream's questions come here from now on, and are answered with `above.say`."""
        held: asyncio.Queue[dns.message.Message] = asyncio.Queue()
        self.above.reply = held.put_nowait
        return held

    async def send(self, query: dns.message.Message) -> dns.message.Message:
        return await dns.asyncquery.udp(query, "127.0.0.1", port=self.port, timeout=DEADLINE)

    async def tcp(self, name: str, kind: str = "A") -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        return await dns.asyncquery.tcp(query, "127.0.0.1", port=self.port, timeout=DEADLINE)


@asynccontextmanager
async def serving(
    clients: Mapping[bytes, bytes] | None = None,
    *,
    answers: Answers | None = None,
    transfer_to: Sequence[str] = (),
) -> AsyncIterator[Running]:
    async with upstream() as above:
        udp, tcp = bound_pair()
        if answers is None:
            answers = small_cluster()
            many = [endpoint(f"10.244.1.{n}", f"pod-{n}") for n in range(1, 101)]
            put(answers, service("crowd", headless=True), endpoint_slice("crowd", *many))
        clock = Clock()
        forwarder = Forwarder((above.address,), plain_socket, clock=clock, try_seconds=DEADLINE)
        transfers = Transfers(answers, map(ipaddress.ip_network, transfer_to))
        server = Server(answers, Resolver(answers, forwarder, transfers), [udp], [tcp], clients or {})
        await server.start()
        try:
            yield Running(server, answers, above, clock, udp.getsockname()[1], forwarder)
        finally:
            await server.stop()
            await forwarder.close()
            udp.close()
            tcp.close()
