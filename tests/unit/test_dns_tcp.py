"""DNS over TCP: many questions on a connection, and bounds; what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import dns.message
import dns.rcode
import pytest

from kubesvc.dns import tcp
from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.metrics import render
from support.dns_serving import DEADLINE, SVC, Clock, Running, serving
from support.dns_upstream import example
from support.dns_zone import texts


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as one:
        yield one


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, name: str, kind: str = "A") -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        whole = query.to_wire()
        self.writer.write(len(whole).to_bytes(2, "big") + whole)
        return query

    async def reply(self) -> dns.message.Message:
        async with asyncio.timeout(DEADLINE):
            size = int.from_bytes(await self.reader.readexactly(2), "big")
            return dns.message.from_wire(await self.reader.readexactly(size))

    async def ended(self) -> bool:
        """Does the server hang up within the deadline?"""
        async with asyncio.timeout(DEADLINE):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


async def connect(running: Running) -> Connection:
    return Connection(*await asyncio.open_connection("127.0.0.1", running.port))


async def test_answers_come_as_they_are_ready(running: Running) -> None:
    """A question that waits for an upstream holds up none behind it; each answer has its question's id."""
    held = running.hold()
    one = await connect(running)
    slow = one.ask("www.example.com")
    quick = [one.ask("web." + SVC) for _ in range(20)]
    for query in quick:
        reply = await one.reply()
        assert (reply.id, texts(reply)) == (query.id, ["A 10.96.0.20"])
    async with asyncio.timeout(DEADLINE):
        running.above.say(example(await held.get()))
    last = await one.reply()
    assert (last.id, texts(last)) == (slow.id, ["A 192.0.2.7"])
    await one.close()


async def test_silent_client_is_hung_up_on(running: Running) -> None:
    """An idle connection ends, also when half a question came over it."""
    running.server.tcp._idle = 0.05
    for start in (b"", b"\0", b"\0\x20abc"):
        one = await connect(running)
        one.writer.write(start)
        assert await one.ended()
        await one.close()


async def test_a_client_that_waits_for_an_answer_isnt_idle(running: Running) -> None:
    """The upstream may take longer than the idle time."""
    held = running.hold()
    one = await connect(running)
    one.ask("web." + SVC)
    await one.reply()
    running.server.tcp._idle = 0.05  # for what comes after the next question
    one.ask("www.example.com")
    async with asyncio.timeout(DEADLINE):
        query = await held.get()
    await asyncio.sleep(0.2)  # longer than that
    running.above.say(example(query))
    assert texts(await one.reply()) == ["A 192.0.2.7"]
    await one.close()


async def test_one_client_cant_take_every_connection(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its share it is hung up on; a connection that ends makes room."""
    monkeypatch.setattr(tcp, "MAX_OF_ONE", 2)
    many = [await connect(running) for _ in range(2)]
    for one in many:
        one.ask("web." + SVC)
        await one.reply()
    refused = await connect(running)
    assert await refused.ended()
    await refused.close()
    await many.pop().close()
    async with asyncio.timeout(DEADLINE):
        while True:
            again = await connect(running)
            try:
                again.ask("web." + SVC)
                assert texts(await again.reply()) == ["A 10.96.0.20"]
                break
            except (EOFError, ConnectionError):
                continue
            finally:
                await again.close()
    await many.pop().close()


async def test_questions_that_wait_are_bounded(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection with too many questions under way isn't read from until one is answered; none is lost."""
    monkeypatch.setattr(tcp, "MAX_WAITING", 2)
    one = await connect(running)
    asked = [one.ask(f"n{number}.example.com") for number in range(6)]
    replies = [await one.reply() for _ in asked]
    assert {reply.id for reply in replies} == {query.id for query in asked}
    assert {reply.rcode() for reply in replies} == {dns.rcode.NXDOMAIN}
    await one.close()


async def test_what_is_counted(running: Running) -> None:
    """CoreDNS's names: questions by protocol and type, answers by rcode, apart for the zone and the rest."""
    await running.udp("web." + SVC)
    await running.udp("web." + SVC, "AAAA", payload=1232)
    await running.udp("gone." + SVC)
    await running.udp("web." + SVC, "TYPE4711")
    await running.tcp("web." + SVC)
    await running.udp("www.example.com")
    forwarder = Forwarder(("192.0.2.53", "192.0.2.54:5353"), plain_socket, clock=Clock())
    forwarder.upstreams[1].down = True
    page = render(running.server.counts, forwarder, zone="cluster.local", port=10053, family="1")
    where = 'server="dns://:10053",zone="cluster.local.",view=""'
    for line in (
        f'coredns_dns_requests_total{{{where},proto="udp",family="1",type="A"}} 2',
        f'coredns_dns_requests_total{{{where},proto="udp",family="1",type="AAAA"}} 1',
        f'coredns_dns_requests_total{{{where},proto="udp",family="1",type="other"}} 1',
        f'coredns_dns_requests_total{{{where},proto="tcp",family="1",type="A"}} 1',
        f'coredns_dns_responses_total{{{where},rcode="NOERROR",plugin=""}} 4',
        f'coredns_dns_responses_total{{{where},rcode="NXDOMAIN",plugin=""}} 1',
        'coredns_dns_requests_total{server="dns://:10053",zone=".",view="",proto="udp",family="1",type="A"} 1',
        'coredns_cache_entries{server="dns://:10053",zones=".",view=""} 0',
        'coredns_forward_requests_total{to="192.0.2.53:53"} 0',
        'kubesvc_dns_upstream_up{to="192.0.2.53:53"} 1',
        'kubesvc_dns_upstream_up{to="192.0.2.54:5353"} 0',
        "coredns_panics_total 0",
        f'coredns_dns_request_duration_seconds_bucket{{{where},le="+Inf"}} 5',
        f"coredns_dns_request_duration_seconds_count{{{where}}} 5",
        'coredns_dns_request_duration_seconds_count{server="dns://:10053",zone=".",view=""} 1',
        f'coredns_dns_request_size_bytes_count{{{where},proto="udp"}} 4',
        f'coredns_dns_response_size_bytes_bucket{{{where},proto="tcp",le="200"}} 1',
    ):
        assert line in page.splitlines(), line
