"""A node's DNS that runs against a session's API, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import dns.asyncquery
import dns.message
import dns.rcode

from kubesvc.client.session import Session
from kubesvc.dns import main
from kubesvc.dns.config import DnsConfig
from kubesvc.dns.neighbour import Probe
from support.dns_upstream import bound_pair
from support.dns_zone import texts

DEADLINE = 60.0
NODE_IP = "172.29.7.2"  # what is announced; the sockets of a test are on loopback
SVC = "default.svc.cluster.local."


class Node:
    """A node's DNS that runs; `ask` asks it over UDP."""

    def __init__(self, session: Session, port: int, task: asyncio.Task[None]) -> None:
        self.session = session
        self.port = port
        self.task = task

    async def ask(self, name: str, kind: str = "A") -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        return await dns.asyncquery.udp(query, "127.0.0.1", port=self.port, timeout=DEADLINE)

    async def until(self, name: str, kind: str, *expected: str, rcode: str = "NOERROR") -> None:
        """Ask until the answer is `expected`; a question is answered within the deadline or the test fails."""
        found = None
        try:
            async with asyncio.timeout(DEADLINE):
                while found != (list(expected), rcode):
                    reply = await self.ask(name, kind)
                    found = (texts(reply), dns.rcode.to_text(reply.rcode()))
        except TimeoutError:
            raise AssertionError(f"{name} {kind}: {found} after {DEADLINE} s; expected {expected}, {rcode}") from None

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def well(zone: bytes) -> Probe:
    """Neighbours are well: nobody listens where they are announced, so they would be taken out after two seconds."""

    async def probe(address: str, port: int) -> bool:
        return True

    return probe


@asynccontextmanager
async def node(session: Session, name: str = "node1", **options: Any) -> AsyncIterator[Node]:
    """A node's DNS on a free port of 127.0.0.1; `options` are of its DnsConfig."""
    udp, tcp = bound_pair()
    port = udp.getsockname()[1]
    config = DnsConfig(name, options.pop("node_ip", NODE_IP), port, (udp,), (tcp,), drain_seconds=0, **options)
    with patch.multiple(main, asking=well, HOLD_SECONDS=DEADLINE, WITHDRAW_SECONDS=DEADLINE):
        one = Node(session, port, asyncio.create_task(main.run(session, config)))
        try:
            # Once the caches have synced, the Service that every cluster has.
            await one.until("kubernetes." + SVC, "A", "A 10.96.0.1")
            yield one
        finally:
            await one.stop()
            udp.close()
            tcp.close()
