"""Announcers of several nodes on one segment, told by the API alone: exactly one answers, and the next takes over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest

from kubesvc.api.labels import EXCLUDE_FROM_LOAD_BALANCERS, SERVICE_NAME
from kubesvc.api.meta import JSON
from kubesvc.api.registry import ENDPOINT_SLICE, NODE, SERVICE
from kubesvc.client.session import Session
from kubesvc.kernel import netns
from kubesvc.loadbalancer.announce.arp import ARPOP_REPLY, ARPOP_REQUEST, BROADCAST, NOBODY, ArpFrame
from kubesvc.loadbalancer.announce.l2 import Responder
from kubesvc.loadbalancer.announce.main import Announcer
from kubesvc.loadbalancer.announce.packets import open_arp
from kubesvc.loadbalancer.config import AnnounceConfig
from support.apiserver import local_session
from support.l2net import Member, segment

VIP = IPv4Address("172.29.7.200")
POOL = ((VIP, VIP),)
DEADLINE = 60.0  # seconds


@pytest.fixture
def members() -> Iterator[dict[str, Member]]:
    with segment(["node1", "node2", "client"]) as (node1, node2, client):
        yield {"node1": node1, "node2": node2, "client": client}


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as session:
        for name in ("node1", "node2"):
            await session.create(NODE, {"metadata": {"name": name}})
            await ready(session, name)
        yield session


async def ready(session: Session, node: str, status: str = "True") -> None:
    conditions = [{"type": "Ready", "status": status}]
    await session.patch(NODE, "", node, {"status": {"conditions": conditions}}, subresource="status")


async def create_service(session: Session, **spec: object) -> None:
    """A Service of type LoadBalancer that shows the address, as the controller would have it."""
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    whole: JSON = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports, **spec}
    await session.create(SERVICE, {"metadata": {"name": "web", "namespace": "default"}, "spec": whole})
    status: JSON = {"loadBalancer": {"ingress": [{"ip": str(VIP), "ipMode": "VIP"}]}}
    await session.patch(SERVICE, "default", "web", {"status": status}, subresource="status")


async def place_endpoint(session: Session, node: str, *, create: bool = False) -> None:
    """The Service's one endpoint is on `node`."""
    endpoints = [{"addresses": ["10.244.0.2"], "nodeName": node, "conditions": {"ready": True}}]
    if create:
        meta = {"name": "web-1", "namespace": "default", "labels": {SERVICE_NAME: "web"}}
        await session.create(ENDPOINT_SLICE, {"metadata": meta, "addressType": "IPv4", "endpoints": endpoints})
    else:
        await session.patch(ENDPOINT_SLICE, "default", "web-1", {"endpoints": endpoints})


@asynccontextmanager
async def announcers(session: Session, members: dict[str, Member]) -> AsyncIterator[None]:
    """One announcer a node, each with its socket in its own namespace. None takes the other for dead: they share a loop
    that may be held up, and no test is about it."""
    tasks: list[asyncio.Task[None]] = []
    try:
        for name in ("node1", "node2"):
            config = AnnounceConfig(name, POOL, announcement_interval=0.01, silence=DEADLINE)
            responder = Responder("eth0", announcements=3, interval=0.01)
            with netns.entered(members[name].path):
                announcer = Announcer(session, config, [responder])
                tasks.append(asyncio.create_task(announcer.run()))
                await asyncio.wait_for(announcer.listening(), DEADLINE)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Neighbour:
    """What a machine on the segment hears and asks."""

    def __init__(self, ear: socket.socket, members: dict[str, Member]) -> None:
        self._ear = ear
        self._mac = mac(members["client"])
        self._address = IPv4Address(members["client"].address)
        self._names = {mac(m): name for name, m in members.items()}  # MAC -> node

    async def hear(self) -> tuple[str, int]:
        """The next ARP packet about the address: from whom, and which operation."""
        while True:
            frame = ArpFrame.from_wire(
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._ear, 2048), DEADLINE)
            )
            if frame is not None and frame.sender_ip == VIP:
                return self._names[frame.sender_mac], frame.operation

    async def take_over_by(self, node: str) -> None:
        """Wait for all three announcements of `node`."""
        heard = 0
        while heard < 3:
            heard += await self.hear() == (node, ARPOP_REQUEST)

    async def holder(self) -> str:
        """Who answers a question."""
        self._ear.send(ArpFrame(BROADCAST, self._mac, ARPOP_REQUEST, self._mac, self._address, NOBODY, VIP).to_wire())
        name, operation = await self.hear()
        assert operation == ARPOP_REPLY
        return name


@pytest.fixture
def neighbour(members: dict[str, Member]) -> Iterator[Neighbour]:
    with netns.entered(members["client"].path):
        ear = open_arp("eth0")
    with ear:
        yield Neighbour(ear, members)


def mac(member: Member) -> bytes:
    return bytes.fromhex(member.mac.replace(":", ""))


async def test_the_next_node_takes_over_and_gives_back(
    session: Session, members: dict[str, Member], neighbour: Neighbour
) -> None:
    async with announcers(session, members):
        await create_service(session)
        first, _ = await neighbour.hear()
        second = "node2" if first == "node1" else "node1"
        for _ in range(2):
            assert (await neighbour.hear()) == (first, ARPOP_REQUEST)
        assert await neighbour.holder() == first

        await ready(session, first, "False")
        await neighbour.take_over_by(second)
        assert await neighbour.holder() == second

        await ready(session, first)
        await neighbour.take_over_by(first)
        assert await neighbour.holder() == first

        excluded: JSON = {"metadata": {"labels": {EXCLUDE_FROM_LOAD_BALANCERS: ""}}}
        await session.patch(NODE, "", first, excluded)
        await neighbour.take_over_by(second)
        assert await neighbour.holder() == second


async def test_policy_local_follows_the_endpoint(
    session: Session, members: dict[str, Member], neighbour: Neighbour
) -> None:
    async with announcers(session, members):
        await place_endpoint(session, "node1", create=True)
        await create_service(session, externalTrafficPolicy="Local")
        await neighbour.take_over_by("node1")
        await place_endpoint(session, "node2")
        await neighbour.take_over_by("node2")
        assert await neighbour.holder() == "node2"
        await place_endpoint(session, "node1")
        await neighbour.take_over_by("node1")
        assert await neighbour.holder() == "node1"
