"""The ARP responder on real interfaces: who answers, for what, and what the neighbours believe."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest

from kubesvc.kernel import netns
from kubesvc.loadbalancer.announce import l2
from kubesvc.loadbalancer.announce.arp import ARPOP_REPLY, ARPOP_REQUEST, BROADCAST, NOBODY, ArpFrame
from kubesvc.loadbalancer.announce.l2 import Responder
from kubesvc.loadbalancer.announce.packets import open_arp
from support.box import eventually
from support.l2net import Member, call_in, run_in, segment, until_joined

VIP, OTHER = IPv4Address("172.29.7.200"), IPv4Address("172.29.7.201")
DEADLINE = 60.0  # seconds


@pytest.fixture
def members() -> Iterator[list[Member]]:
    with segment(["node1", "node2", "client"]) as made:
        yield made


@asynccontextmanager
async def responding(member: Member, *, announcements: int = 1) -> AsyncIterator[Responder]:
    """A responder in the member's namespace; its socket is opened there and stays there."""
    responder = Responder("eth0", announcements=announcements, interval=0.01)
    with netns.entered(member.path):
        task = asyncio.create_task(responder.run())
        # No other task of this test opens a socket, so the thread may stay in the namespace over this one await.
        await asyncio.wait_for(responder.listening.wait(), DEADLINE)
    try:
        yield responder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def client(members: list[Member]) -> Iterator[socket.socket]:
    """The client's ear and mouth for ARP."""
    with netns.entered(members[2].path):
        opened = open_arp("eth0")
    with opened:
        yield opened


def mac(member: Member) -> bytes:
    return bytes.fromhex(member.mac.replace(":", ""))


def question(asker: Member, address: IPv4Address) -> bytes:
    return ArpFrame(
        BROADCAST, mac(asker), ARPOP_REQUEST, mac(asker), IPv4Address(asker.address), NOBODY, address
    ).to_wire()


async def hear(ear: socket.socket) -> ArpFrame:
    """The next ARP packet that reaches the client."""
    frame = ArpFrame.from_wire(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ear, 2048), DEADLINE))
    assert frame is not None
    return frame


async def test_debians_arping_gets_our_answer(members: list[Member]) -> None:
    node1, _, client = members
    async with responding(node1) as responder:
        responder.claim(frozenset({VIP}))
        status, output = await call_in(client, "arping", "-c", "1", "-w", "60", "-I", "eth0", str(VIP))
    assert status == 0, output
    assert f"Unicast reply from {VIP} [{node1.mac.upper()}]" in output


async def test_only_claimed_addresses_are_answered_for(members: list[Member], client: socket.socket) -> None:
    node1, _, asker = members
    async with responding(node1) as responder:
        responder.claim(frozenset({VIP}))
        await hear(client)  # the announcement
        client.send(question(asker, OTHER))
        client.send(question(asker, VIP))
        answer = await hear(client)  # questions are answered in order: had the first been, it would be here
        assert (answer.operation, answer.sender_ip, answer.sender_mac) == (ARPOP_REPLY, VIP, mac(node1))
        assert answer.destination == mac(asker)

        responder.claim(frozenset({OTHER}))
        await hear(client)
        client.send(question(asker, VIP))
        client.send(question(asker, OTHER))
        assert (await hear(client)).sender_ip == OTHER


async def test_an_announcement_by_another_is_no_question(members: list[Member], client: socket.socket) -> None:
    node1, node2, asker = members
    async with responding(node1) as responder, responding(node2) as other:
        responder.claim(frozenset({VIP}))
        other.claim(frozenset({VIP}))
        assert {(await hear(client)).sender_mac, (await hear(client)).sender_mac} == {mac(node1), mac(node2)}
        other.claim(frozenset())
        client.send(question(asker, VIP))
        answer = await hear(client)
        assert (answer.operation, answer.sender_mac) == (ARPOP_REPLY, mac(node1))


async def test_a_take_over_is_announced_more_than_once(members: list[Member], client: socket.socket) -> None:
    node1 = members[0]
    async with responding(node1, announcements=3) as responder:
        responder.claim(frozenset({VIP}))
        for _ in range(3):
            told = await hear(client)
            assert (told.destination, told.operation) == (BROADCAST, ARPOP_REQUEST)
            assert (told.sender_ip, told.target_ip, told.sender_mac) == (VIP, VIP, mac(node1))


async def test_neighbours_follow_a_take_over(members: list[Member], client: socket.socket) -> None:
    node1, node2, neighbour = members
    async with responding(node1) as first, responding(node2) as second:
        first.claim(frozenset({VIP}))
        await call_in(neighbour, "ping", "-c", "1", "-W", "1", "-q", str(VIP))  # nobody replies: ARP is what we want
        known = lambda: node1.mac in run_in(neighbour, "ip", "neigh", "show", str(VIP))  # noqa: E731
        await asyncio.to_thread(eventually, known, what="the first is known")
        run_in(neighbour, "ip", "neigh", "change", str(VIP), "dev", "eth0", "lladdr", node1.mac, "nud", "stale")
        first.claim(frozenset())
        second.claim(frozenset({VIP}))
        while (await hear(client)).sender_mac != mac(node2):
            pass
        assert node2.mac in run_in(neighbour, "ip", "neigh", "show", str(VIP))


async def test_the_address_is_never_local_to_the_node(members: list[Member]) -> None:
    node1 = members[0]
    async with responding(node1) as responder:
        responder.claim(frozenset({VIP}))
        assert str(VIP) not in run_in(node1, "ip", "route", "show", "table", "local")
        assert str(VIP) not in run_in(node1, "ip", "address", "show")


async def test_an_interface_that_goes_down_and_comes_back_is_answered_on_again(
    members: list[Member], client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    node1, _, asker = members
    monkeypatch.setattr(l2, "FIRST_DELAY", 0.01)
    async with responding(node1) as responder:
        responder.claim(frozenset({VIP}))
        await hear(client)
        with netns.entered(node1.path):  # where the responder opens its next socket
            run_in(node1, "ip", "link", "set", "eth0", "down")
            run_in(node1, "ip", "link", "set", "eth0", "up")
            until_joined(node1)
            while (told := await hear(client)).sender_ip != VIP:
                pass
        assert told.operation == ARPOP_REQUEST  # announced again
        client.send(question(asker, VIP))
        while (answer := await hear(client)).operation != ARPOP_REPLY:
            pass
        assert (answer.sender_ip, answer.sender_mac) == (VIP, mac(node1))
