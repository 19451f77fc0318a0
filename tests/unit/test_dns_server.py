"""The server on real sockets of 127.0.0.1, asked with dnspython."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import pytest
import uvloop

from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.resolver import Resolver
from support.dns_serving import DEADLINE, SVC, Clock, Running, serving
from support.dns_upstream import example, upstream
from support.dns_zone import endpoint, endpoint_slice, put, service, small_cluster, texts


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as one:
        yield one


def test_sockets_work_on_uvloop() -> None:
    """The other event loop: UDP, TCP, an upstream asked over both."""

    async def scenario() -> None:
        async with serving() as one:
            assert texts(await one.udp("web." + SVC)) == ["A 10.96.0.20"]
            assert texts(await one.tcp("web." + SVC)) == ["A 10.96.0.20"]
            assert texts(await one.udp("outside." + SVC)) == ["A 192.0.2.7", "CNAME www.example.com."]
            assert len((await one.tcp("many.example.com")).answer[0]) == 200
            one.silence()
            assert (await one.udp("silent.example.com")).rcode() == dns.rcode.SERVFAIL

    uvloop.run(scenario())


def way(running: Running) -> tuple[int, int]:
    """How many answers went the fast way and the slow one."""
    counts = running.server.counts
    return sum(counts.fast.values()), sum(counts.others.values())


async def test_plain_question_takes_the_fast_path(running: Running) -> None:
    """A stub resolver's pair of questions is answered from the table alone, in the case it was asked."""
    assert texts(await running.udp("Web.default.svc.cluster.local")) == ["A 10.96.0.20"]
    assert (await running.udp("web." + SVC, "AAAA")).rcode() == dns.rcode.NOERROR
    assert way(running) == (2, 0)


async def test_plain_question_with_edns_takes_the_fast_path(running: Running) -> None:
    """As Go and musl ask; the answer has an OPT because the question had one."""
    reply = await running.udp("web." + SVC, payload=1232)
    assert texts(reply) == ["A 10.96.0.20"]
    assert reply.edns == 0
    assert way(running) == (1, 0)


async def test_fast_and_slow_path_agree(running: Running) -> None:
    """CD makes a question odd; its answer is the plain one's, with CD."""
    for name, kind in (("web." + SVC, "A"), ("web." + SVC, "AAAA"), (f"_http._tcp.web.{SVC}", "SRV")):
        plain = dns.message.make_query(name, kind, id=1)
        odd = dns.message.make_query(name, kind, id=1, flags=dns.flags.RD | dns.flags.CD)
        fast, slow = await running.send(plain), await running.send(odd)
        assert slow.flags == fast.flags | dns.flags.CD
        assert fast.to_wire()[4:] == slow.to_wire()[4:]


async def test_search_path_of_a_pod_ends_at_once(running: Running) -> None:
    """Every name a pod's search path makes on its way to an outside name is NXDOMAIN without asking anybody."""
    for suffix in (SVC, "svc.cluster.local.", "cluster.local."):
        assert (await running.udp("www.example.com." + suffix)).rcode() == dns.rcode.NXDOMAIN
        assert (await running.udp(f"web.{SVC}{suffix}")).rcode() == dns.rcode.NXDOMAIN
    assert running.above.asked == []


async def test_cut_answer_is_whole_over_tcp(running: Running) -> None:
    """TC over UDP; all the addresses over TCP."""
    assert (await running.udp("crowd." + SVC)).flags & dns.flags.TC
    assert len((await running.tcp("crowd." + SVC)).answer[0]) == 100


async def test_headless_service_of_thousands_of_endpoints_answers_over_tcp(running: Running) -> None:
    """5,000 addresses are more than a message can hold (64 KiB): as many as fit, with TC, the rest in later turns."""
    pieces = [
        endpoint_slice("huge", *(endpoint(f"10.{n}.{m >> 8}.{m & 255}") for m in range(1000)), suffix=str(n))
        for n in range(5)
    ]
    put(running.answers, service("huge", headless=True), *pieces)
    seen = []
    for _ in range(2):
        reply = await running.tcp("huge." + SVC)
        assert reply.flags & dns.flags.TC
        assert len(reply.answer[0]) == (65535 - 12 - len(b"\x04huge\x07default\x03svc\x07cluster\x05local\0") - 4) // 16
        seen.append({str(one) for one in reply.answer[0]})
    assert len(seen[0] & seen[1]) < len(seen[0])
    assert (await running.udp("huge." + SVC)).flags & dns.flags.TC
    assert texts(await running.tcp("10-4-3-231.huge." + SVC)) == ["A 10.4.3.231"]
    assert texts(await running.tcp("231.3.4.10.in-addr.arpa", "PTR")) == [f"PTR 10-4-3-231.huge.{SVC}"]


async def test_tcp_connection_answers_many_questions(running: Running) -> None:
    """One after the other on one connection, the second in two pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for pieces in (1, 2):
        query = dns.message.make_query("web." + SVC, "A")
        whole = struct.pack("!H", len(query.to_wire())) + query.to_wire()
        cut = len(whole) // pieces
        writer.write(whole[:cut])
        await writer.drain()
        writer.write(whole[cut:])
        async with asyncio.timeout(DEADLINE):
            size = int.from_bytes(await reader.readexactly(2), "big")
            reply = dns.message.from_wire(await reader.readexactly(size))
        assert query.is_response(reply)
        assert texts(reply) == ["A 10.96.0.20"]
    writer.close()
    await writer.wait_closed()


async def test_transfer_is_refused(running: Running) -> None:
    """AXFR isn't allowed."""
    assert (await running.tcp("cluster.local.", "AXFR")).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        pytest.param(lambda q: q.set_opcode(dns.opcode.NOTIFY), dns.rcode.NOTIMP, id="another opcode"),
        pytest.param(lambda q: q.question.clear(), dns.rcode.FORMERR, id="no question"),
        pytest.param(lambda q: q.use_edns(1), dns.rcode.BADVERS, id="EDNS of the future"),
    ],
)
async def test_odd_question_gets_its_error(running: Running, change: object, rcode: dns.rcode.Rcode) -> None:
    """What we don't do is said, not ignored."""
    query = dns.message.make_query("web." + SVC, "A")
    change(query)  # type: ignore[operator]
    assert (await running.send(query)).rcode() == rcode


async def test_chaos_class_is_refused(running: Running) -> None:
    """Only the Internet class is served."""
    query = dns.message.make_query("version.bind", "TXT", rdclass=dns.rdataclass.CH)
    assert (await running.send(query)).rcode() == dns.rcode.REFUSED


async def test_rubbish_gets_no_answer_and_harms_nobody(running: Running) -> None:
    """Answers, fragments and noise are dropped; the next question is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noisy:
        for rubbish in (b"", b"x", b"\0" * 11, b"ab\x80\0" + b"\0" * 8, b"\xff" * 600):
            noisy.sendto(rubbish, ("127.0.0.1", running.port))
    assert texts(await running.udp("web." + SVC)) == ["A 10.96.0.20"]


async def test_servfail_until_synced(running: Running) -> None:
    """Names of the zone wait for the caches; outside names don't."""
    running.answers.synced = False
    assert (await running.udp("web." + SVC)).rcode() == dns.rcode.SERVFAIL
    assert texts(await running.udp("www.example.com")) == ["A 192.0.2.7"]


# ── other names ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_other_names_are_forwarded_and_kept(running: Running) -> None:
    """The upstream's answer, once asked for; its TTL runs down until it is asked for again."""
    first = await running.udp("WWW.example.com")
    assert texts(first) == ["A 192.0.2.7"]
    assert first.flags & dns.flags.RA
    assert not first.flags & dns.flags.AA
    assert str(first.answer[0].name) == "WWW.example.com."
    running.clock.now += 10
    assert (await running.udp("www.example.com", payload=1232)).answer[0].ttl == 50
    assert len(running.above.asked) == 1
    running.clock.now += 30
    assert (await running.udp("www.example.com")).answer[0].ttl == 60
    assert len(running.above.asked) == 2


async def test_negative_upstream_answer_is_handed_on_and_kept(running: Running) -> None:
    """NXDOMAIN with the SOA that came with it, for as long as that says."""
    for _ in range(2):
        reply = await running.udp("gone.example.com")
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert reply.authority
    assert len(running.above.asked) == 1
    running.clock.now += 21
    await running.udp("gone.example.com")
    assert len(running.above.asked) == 2


async def test_the_same_question_under_way_is_asked_once(running: Running) -> None:
    """Many clients at once, one question upstream."""
    replies = await asyncio.gather(*(running.udp("www.example.com") for _ in range(20)))
    assert all(texts(reply) == ["A 192.0.2.7"] for reply in replies)
    assert len(running.above.asked) == 1


async def test_upstream_questions_cant_be_guessed(running: Running) -> None:
    """Each goes out from another port with another id."""
    for n in range(8):
        await running.udp(f"n{n}.example.com")
    assert len(set(running.above.ports)) > 4
    assert len(set(running.above.ids)) > 4


async def test_forged_replies_are_passed_over(running: Running) -> None:
    """A reply with another id or question isn't the one waited for."""
    real = running.above.reply

    def forge_first(query: dns.message.Message) -> dns.message.Message | None:
        forged = example(query)
        forged.id ^= 1
        running.above.say(forged)
        return real(query)

    running.above.reply = forge_first
    assert texts(await running.udp("www.example.com")) == ["A 192.0.2.7"]
    assert len(running.above.asked) == 1


async def test_cut_upstream_answer_is_fetched_over_tcp(running: Running) -> None:
    """The client gets what it can receive, and all of it over TCP."""
    assert (await running.udp("many.example.com")).flags & dns.flags.TC
    assert len((await running.tcp("many.example.com")).answer[0]) == 200
    assert len(running.above.asked) == 2


async def test_silent_upstream_is_asked_again(running: Running) -> None:
    """A lost packet costs a moment, not the answer."""
    running.silence()

    def lose_first(query: dns.message.Message) -> dns.message.Message | None:
        running.try_for(DEADLINE)
        return example(query) if len(running.above.asked) > 1 else None

    running.above.reply = lose_first
    assert texts(await running.udp("www.example.com")) == ["A 192.0.2.7"]


async def test_dead_upstream_is_servfail_with_a_log_line(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """When nobody replies the client hears so before it gives up, and so does the log, once."""
    running.silence()
    for name in ("www.example.com", "gone.example.com"):
        assert (await running.udp(name)).rcode() == dns.rcode.SERVFAIL
    assert len([r for r in caplog.records if "no reply from 127.0.0.1" in r.getMessage()]) == 1


async def test_no_upstream_is_refused_with_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """A cluster without a way out says so."""
    answers = small_cluster()
    resolver = Resolver(answers, Forwarder((), plain_socket, clock=Clock()))
    reply = await resolver.answer(dns.message.make_query("www.example.com", "A").to_wire(), tcp=False)
    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.REFUSED
    assert "no upstream" in caplog.text


async def test_next_upstream_is_asked_and_preferred(running: Running) -> None:
    """A dead first resolver costs one wait, not one for each question."""
    async with upstream(lambda query: None) as dead:
        forwarder = Forwarder((dead.address, running.above.address), plain_socket, clock=Clock(), try_seconds=0.1)
        resolver = Resolver(running.answers, forwarder)
        await resolver.answer(dns.message.make_query("www.example.com", "A").to_wire(), tcp=False)
        assert (waited := len(dead.asked)) > 0
        forwarder._pools[dns.name.root]._try_seconds = DEADLINE
        await resolver.answer(dns.message.make_query("gone.example.com", "A").to_wire(), tcp=False)
        assert len(dead.asked) == waited
        assert running.above.asked[-1] == "gone.example.com. IN A"


# ── ExternalName ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_external_name_brings_the_upstreams_addresses(running: Running) -> None:
    """CNAME, in the asker's case, and what the upstream says of its target."""
    reply = await running.udp("Outside." + SVC)
    assert texts(reply) == ["A 192.0.2.7", "CNAME www.example.com."]
    assert str(reply.answer[0].name) == "Outside." + SVC
    assert reply.rcode() == dns.rcode.NOERROR


async def test_external_name_without_an_upstream_still_shows_where_it_leads(running: Running) -> None:
    """SERVFAIL, because addresses can't be had, with the CNAME."""
    running.silence()
    reply = await running.udp("outside." + SVC)
    assert texts(reply) == ["CNAME www.example.com."]
    assert reply.rcode() == dns.rcode.SERVFAIL
