"""Datagrams received and answered where they lie, of both families."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import dns.message
import pytest

from kubesvc.dns.datagrams import SLOT, Datagrams
from support.dns_serving import DEADLINE, SVC, serving
from support.dns_zone import texts

SO_PEEK_OFF = 42  # asm-generic/socket.h
FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's socket, and a client's that talks to it."""
    family, address = request.param
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((address, 0))
        client.connect(server.getsockname()[:2])
        client.settimeout(DEADLINE)
        yield server, client


def arrived(server: socket.socket, count: int) -> None:
    """Wait until so many datagrams lie in the queue: under load the kernel may deliver them after they were sent."""
    server.settimeout(DEADLINE)
    server.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    for _ in range(count):
        server.recv(65535, socket.MSG_PEEK)
    server.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)


def test_what_waits_is_received_at_once_and_goes_back_changed(pair: tuple[socket.socket, socket.socket]) -> None:
    """Each in its slot, with its length and its peer; an answer is longer than its question, a gap isn't sent."""
    server, client = pair
    batch = Datagrams(4)
    assert batch.receive(server.fileno()) == 0
    for round_ in (b"a", b"b"):  # lengths and peers of one round must not show in the next
        for text in (b"0", b"1 is longer", b"", b"3", b"4 has to wait"):
            client.send(round_ + text)
        arrived(server, 5)
        assert batch.receive(server.fileno()) == 4
        assert [batch.data(i) for i in range(4)] == [round_ + text for text in (b"0", b"1 is longer", b"", b"3")]
        assert [batch.peer(i)[:2] for i in range(4)] == [client.getsockname()[:2]] * 4
        assert batch.packed(0) == socket.inet_pton(server.family, client.getsockname()[0])
        for i in (0, 3):
            batch.region[i * SLOT : i * SLOT + 9] = b"answer %d " % i
            batch.sizes[2 * i + 1] = 9
        batch.send(server.fileno(), 0, 1)
        batch.send(server.fileno(), 3, 4)
        assert [client.recv(100), client.recv(100)] == [b"answer 0 ", b"answer 3 "]
        assert batch.receive(server.fileno()) == 1
        assert batch.data(0) == round_ + b"4 has to wait"
        assert batch.receive(server.fileno()) == 0


def test_one_that_cant_be_sent_costs_the_others_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    """A forged source such as port 0 is passed over."""
    server, client = pair
    batch = Datagrams(3)
    for text in (b"0", b"1", b"2"):
        client.send(text)
    arrived(server, 3)
    assert batch.receive(server.fileno()) == 3
    for i in range(3):
        batch.sizes[2 * i + 1] = 1
    batch._peers[32 + 2 : 32 + 4] = b"\0\0"
    batch.send(server.fileno(), 0, 3)
    assert [client.recv(10), client.recv(10)] == [b"0", b"2"]


def test_one_that_is_too_long_is_cut(pair: tuple[socket.socket, socket.socket]) -> None:
    """It fills its slot and nobody else's."""
    server, client = pair
    batch = Datagrams(2)
    client.send(b"x" * (SLOT + 100))
    client.send(b"y")
    arrived(server, 2)
    assert batch.receive(server.fileno()) == 2
    assert batch.data(0) == b"x" * SLOT
    assert batch.data(1) == b"y"


async def test_batch_of_plain_odd_and_forwarded_questions_is_answered_one_by_one() -> None:
    """However they are mixed, each question has its own answer, and each is counted once and with a time."""
    async with serving() as one:
        names = ["web." + SVC, "www.example.com.", "crowd." + SVC, "gone." + SVC] * 10
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", one.port))
            asked = {}
            for number, name in enumerate(names):  # nothing is read in between: they come as batches
                query = dns.message.make_query(name, "A", id=number, use_edns=0 if number % 3 else -1, payload=1232)
                client.send(query.to_wire())
                asked[number] = query
            client.setblocking(False)
            got = {}
            async with asyncio.timeout(DEADLINE):
                while len(got) < len(names):
                    data = await asyncio.get_running_loop().sock_recv(client, 65535)
                    reply = dns.message.from_wire(data)
                    got[reply.id] = reply
        for number, query in asked.items():
            assert query.is_response(got[number]), number
        assert all(texts(got[n]) == ["A 10.96.0.20"] for n in range(0, 40, 4))
        assert all(texts(got[n]) == ["A 192.0.2.7"] for n in range(1, 40, 4))
        counts = one.server.counts
        assert counts.answers().total() == len(names)
        assert sum(sum(one.counts) for one in counts.durations.values()) == len(names)
        assert sum(sum(one.counts) for pair in counts.sizes.values() for one in pair) == 2 * len(names)
        assert 0 < counts.durations[False].sum < DEADLINE
