"""From what the API shows to what one node claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest

from kubesvc.api.meta import JSON
from kubesvc.api.registry import NODE, SERVICE
from kubesvc.client.session import Session
from kubesvc.loadbalancer.announce.l2 import Responder
from kubesvc.loadbalancer.announce.main import Announcer
from kubesvc.loadbalancer.config import AnnounceConfig
from support.apiserver import local_session

VIP, SECOND, FOREIGN = (IPv4Address(a) for a in ("172.29.7.200", "172.29.7.201", "203.0.113.7"))
POOL = ((VIP, SECOND),)
DEADLINE = 60.0  # seconds


class Claims(Responder):
    """A responder without a socket: it remembers what it is told to claim."""

    def __init__(self) -> None:
        super().__init__("nowhere", announcements=0, interval=0)
        self._claimed = asyncio.Event()

    async def run(self) -> None:
        await asyncio.Event().wait()

    def claim(self, addresses: frozenset[IPv4Address]) -> None:
        super().claim(addresses)
        self._claimed.set()

    async def become(self, *addresses: IPv4Address) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.claimed != set(addresses):
                self._claimed.clear()
                await self._claimed.wait()


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as session:
        await session.create(NODE, {"metadata": {"name": "node1"}})
        yield session


@pytest.fixture
async def node1(session: Session) -> AsyncIterator[Claims]:
    """What node1, the only node, claims."""
    claims = Claims()
    task = asyncio.create_task(Announcer(session, AnnounceConfig("node1", POOL), [claims]).run())
    yield claims
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ready(session: Session, status: str = "True") -> None:
    conditions = [{"type": "Ready", "status": status}]
    await session.patch(NODE, "", "node1", {"status": {"conditions": conditions}}, subresource="status")


async def create_service(session: Session, name: str, *addresses: IPv4Address) -> None:
    spec: JSON = {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    await session.create(SERVICE, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    status: JSON = {"loadBalancer": {"ingress": [{"ip": str(a), "ipMode": "VIP"} for a in addresses]}}
    await session.patch(SERVICE, "default", name, {"status": status}, subresource="status")


async def test_addresses_come_and_go_with_their_services(session: Session, node1: Claims) -> None:
    await ready(session)
    await create_service(session, "web", VIP)
    await node1.become(VIP)
    await create_service(session, "shop", SECOND, FOREIGN)
    await node1.become(VIP, SECOND)
    await session.delete(SERVICE, "default", "shop")
    await node1.become(VIP)
    await session.patch(SERVICE, "default", "web", {"spec": {"type": "ClusterIP"}})
    await node1.become()


async def test_a_node_that_is_not_ready_claims_nothing(session: Session, node1: Claims) -> None:
    await create_service(session, "web", VIP)
    await ready(session)
    await node1.become(VIP)
    await ready(session, "Unknown")
    await node1.become()
    await ready(session)
    await node1.become(VIP)
