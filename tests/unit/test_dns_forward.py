"""Upstreams: whom for what, in good and in bad days."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubesvc.dns import upstreams
from kubesvc.dns.cache import Cache
from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import STALE_TTL, Forwarder, NoReply
from kubesvc.dns.resolver import Resolver
from support.dns_serving import DEADLINE, SVC, Clock, serving
from support.dns_upstream import Upstream, example, upstream
from support.dns_zone import ask, new_zone, put, service, small_cluster, texts

WWW = dns.name.from_text("www.example.com")
A = dns.rdatatype.A
SHORT = 0.1  # seconds, for an upstream that says nothing


def forwarder(*addresses: str, clock: Clock | None = None, **options: object) -> Forwarder:
    patient = {"try_seconds": DEADLINE, "stale_wait": DEADLINE, "probe_seconds": (0.01, 0.01)} | options
    return Forwarder(addresses, plain_socket, clock=clock or Clock(), **patient)  # type: ignore[arg-type]


def wait_for(one: Forwarder, seconds: float) -> None:
    """How long `one` waits for an upstream from now on."""
    one._stale_wait = seconds / 2
    for pool in one._pools.values():
        pool._try_seconds = seconds


def silent(query: dns.message.Message) -> None:
    return None


def says(address: str) -> Callable[[dns.message.Message], dns.message.Message]:
    """An upstream that has one address for everything."""

    def reply(query: dns.message.Message) -> dns.message.Message:
        found = dns.message.make_response(query, recursion_available=True)
        found.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
        return found

    return reply


async def until(holds: Callable[[], bool]) -> None:
    """Turn the event loop until `holds`, within the deadline."""
    async with asyncio.timeout(DEADLINE):
        while not holds():  # noqa: ASYNC110 (a state of the code under test, which has no event for it)
            await asyncio.sleep(0)


# ── which upstream ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_names_of_a_stub_zone_go_to_its_servers() -> None:
    """The longest zone above the name decides; a name that only ends alike is not in it."""
    async with (
        upstream(says("192.0.2.1")) as world,
        upstream(says("192.0.2.2")) as corp,
        upstream(says("192.0.2.3")) as lab,
    ):
        one = forwarder(world.address, zones={"corp.example": [corp.address], "lab.corp.example.": [lab.address]})
        for name, address in (
            ("git.corp.example", "192.0.2.2"),
            ("Corp.Example", "192.0.2.2"),
            ("x.lab.corp.example", "192.0.2.3"),
            ("xcorp.example", "192.0.2.1"),
        ):
            assert texts((await one.ask(dns.name.from_text(name), A)).message) == [f"A {address}"]
        await one.close()


async def test_upstream_that_stays_silent_is_passed_over_until_it_answers_again() -> None:
    """After three failures in a row nobody waits for it; a probe brings it back."""
    async with upstream(silent) as first, upstream(says("192.0.2.2")) as second:
        one = forwarder(first.address, second.address, try_seconds=SHORT)
        ailing, well = one.upstreams
        for number in range(3):
            one._pools[dns.name.root].upstreams[:] = [ailing, well]  # its turn again
            await one.ask(dns.name.from_text(f"a{number}.example"), A)
        assert ailing.down
        one._pools[dns.name.root].upstreams[:] = [ailing, well]
        first.asked.clear()
        await one.ask(dns.name.from_text("b.example"), A)
        assert not [question for question in first.asked if "example" in question]
        first.reply = example
        await until(lambda: not ailing.down)
        await one.close()


async def test_when_all_are_down_all_are_tried() -> None:
    """A resolver that comes back is used at once, without waiting for a probe."""
    async with upstream(silent) as only:
        one = forwarder(only.address, probe_seconds=(60, 60), try_seconds=SHORT)
        for name in ("a.example", "b.example"):
            with pytest.raises(NoReply):
                await one.ask(dns.name.from_text(name), A)
        assert one.upstreams[0].down
        only.reply = example
        wait_for(one, DEADLINE)
        assert texts((await one.ask(WWW, A)).message) == ["A 192.0.2.7"]
        assert not one.upstreams[0].down
        await one.close()


async def test_a_failure_is_remembered_for_a_moment() -> None:
    """What nobody could answer isn't asked again by each client (RFC 9520)."""
    clock = Clock()
    async with upstream(silent) as only:
        one = forwarder(only.address, clock=clock, try_seconds=SHORT)
        with pytest.raises(NoReply):
            await one.ask(WWW, A)
        before = len([q for q in only.asked if "www" in q])
        with pytest.raises(NoReply):
            await one.ask(WWW, A)
        assert len([q for q in only.asked if "www" in q]) == before
        clock.now += 3
        only.reply = example
        wait_for(one, DEADLINE)
        assert texts((await one.ask(WWW, A)).message) == ["A 192.0.2.7"]
        await one.close()


# ── cache ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trouble", ["silence", "SERVFAIL"])
async def test_stale_answer_is_served_while_no_upstream_replies(trouble: str) -> None:
    """Better old than none, for an hour, marked by a TTL of 30 s; the fresh one as soon as it can be had."""

    def broken(query: dns.message.Message) -> dns.message.Message | None:
        if trouble == "silence":
            return None
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.SERVFAIL)
        return reply

    clock = Clock()
    async with upstream() as above:
        one = forwarder(above.address, clock=clock)
        await one.ask(WWW, A)
        above.reply = broken
        wait_for(one, SHORT)
        clock.now += 31
        reply = await one.ask(WWW, A)
        assert texts(reply.message) == ["A 192.0.2.7"]
        assert (reply.stale, reply.ttl(60)) == (True, STALE_TTL)
        clock.now += 3
        above.reply = says("192.0.2.8")
        await until(lambda: not one._under_way)
        wait_for(one, DEADLINE)
        clock.now += 3
        assert texts((await one.ask(WWW, A)).message) == ["A 192.0.2.8"]
        above.reply = broken
        clock.now += 60 + 3600
        if trouble == "silence":
            wait_for(one, SHORT)
            with pytest.raises(NoReply):
                await one.ask(WWW, A)
        else:
            assert (await one.ask(WWW, A)).message.rcode() == dns.rcode.SERVFAIL
        await one.close()


async def test_popular_answer_is_fetched_again_before_it_ends() -> None:
    """Who asks often never waits: the answer of before is given while the next one is fetched."""
    clock = Clock()
    async with upstream() as above:
        one = forwarder(above.address, clock=clock)
        await one.ask(WWW, A)
        for _ in range(3):
            await one.ask(WWW, A)
        assert len(above.asked) == 1
        clock.now += 25
        assert (await one.ask(WWW, A)).age == 25
        await until(lambda: len(above.asked) == 2 and not one._under_way)
        clock.now += 10
        assert (await one.ask(WWW, A)).age == 10
        assert one.prefetched == 1
        await one.close()


def test_cache_is_bounded_and_forgets_what_is_used_least() -> None:
    """The reply unused for longest makes room."""
    cache = Cache(size=2)
    keys = [(dns.name.from_text(name), 1, False) for name in ("a.example", "b.example", "c.example")]
    for key in keys[:2]:
        cache.put(key, example(dns.message.make_query(key[0], "A")), 0)
    cache.get(keys[0], 0)
    cache.put(keys[2], example(dns.message.make_query(keys[2][0], "A")), 0)
    assert [cache.get(key, 0) is not None for key in keys] == [True, False, True]
    assert len(cache) == 2


# ── what can be forged, and what goes round in circles ───────────────────────────────────────────────────────────────


async def test_letters_case_is_drawn_and_must_come_back() -> None:
    """0x20: each question is spelt anew; a reply with the right id and another spelling is passed over."""
    async with upstream() as above:

        def forge_first(query: dns.message.Message) -> dns.message.Message:
            spelt = query.question[0].name
            other = dns.name.Name([label.swapcase() for label in spelt.labels])
            forged = dns.message.make_query(other, "A")
            forged.id = query.id
            above.say(says("203.0.113.66")(forged))
            return says("192.0.2.7")(query)

        above.reply = forge_first
        one = forwarder(above.address, random_case=True)
        for number in range(4):
            name = dns.name.from_text(f"n{number}.a-rather-long-name.example.com")
            assert texts((await one.ask(name, A)).message) == ["A 192.0.2.7"]
        assert any(question != question.lower().replace(" in a", " IN A") for question in above.asked)
        await one.close()


async def test_drawn_case_isnt_shown_to_the_client() -> None:
    """The answer's names are in the asker's spelling."""
    async with upstream() as above:
        one = forwarder(above.address, random_case=True)
        query = dns.message.make_query("www.example.com", "A")
        reply = await Resolver(small_cluster(), one).answer(query.to_wire(), tcp=False)
        assert reply is not None
        assert str(dns.message.from_wire(reply).answer[0].name) == "www.example.com."
        await one.close()


async def test_forwarding_loop_is_found_and_ended(caplog: pytest.LogCaptureFixture) -> None:
    """A question that only we could have sent comes in: its upstream is told of in the log, and asked no more."""
    async with serving() as running:
        answers = small_cluster()
        one = forwarder(running.above.address)
        resolver = Resolver(answers, one)
        seen: list[bytes | None] = []

        async def back(query: dns.message.Message) -> None:
            seen.append(await resolver.answer(query.to_wire(), tcp=False))

        tasks = set()

        def around(query: dns.message.Message) -> None:
            tasks.add(asyncio.ensure_future(back(query)))

        running.above.reply = around
        one.probe_loops()
        await until(lambda: any(upstream.looping for upstream in one.upstreams))
        assert "forwarding loop" in caplog.text
        assert "--forward" in caplog.text
        await until(lambda: bool(seen))
        assert seen[0] is not None
        assert dns.message.from_wire(seen[0]).rcode() == dns.rcode.REFUSED
        query = dns.message.make_query("www.example.com", "A")
        reply = await resolver.answer(query.to_wire(), tcp=False)
        assert reply is not None
        assert dns.message.from_wire(reply).rcode() == dns.rcode.REFUSED
        await asyncio.gather(*tasks)
        await one.close()


async def test_probe_of_an_honest_upstream_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """NXDOMAIN for our probe, and that was it."""
    async with upstream() as above:
        one = forwarder(above.address)
        one.probe_loops()
        await until(lambda: len(above.asked) == 1)
        assert texts((await one.ask(WWW, A)).message) == ["A 192.0.2.7"]
        assert "loop" not in caplog.text
        await one.close()


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _certificate(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dns.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("dns.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + made.public_bytes(encoding))
    return path


@asynccontextmanager
async def over_tls(certificate: Path) -> AsyncIterator[tuple[Upstream, int, list[int]]]:
    """(what it was asked, its port, connections so far) of a resolver that speaks TLS alone."""
    above, connections = Upstream(says("192.0.2.9")), [0]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[0] += 1
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                answer = above._answer(await reader.readexactly(size), ("", 0), 65535)
                assert answer is not None
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (EOFError, OSError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield above, server.sockets[0].getsockname()[1], connections
    finally:
        server.close()


async def test_upstream_over_tls_is_verified_and_its_connection_kept(tmp_path: Path) -> None:
    """Questions share a connection; a server with another name is no upstream."""
    certificate = _certificate(tmp_path / "both.pem")
    async with over_tls(certificate) as (above, port, connections):
        trust = ssl.create_default_context(cafile=str(certificate))
        one = forwarder(f"tls://127.0.0.1:{port}#dns.example", tls=trust)
        for name in ("a.example", "b.example"):
            assert texts((await one.ask(dns.name.from_text(name), A)).message) == ["A 192.0.2.9"]
        assert (len(above.asked), connections) == (2, [1])
        await one.close()
        other = forwarder(f"tls://127.0.0.1:{port}#another.example", tls=trust)
        with pytest.raises(NoReply):
            await other.ask(WWW, A)
        assert len(above.asked) == 2
        await other.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.53", upstreams.Endpoint("192.0.2.53", 53)),
        ("tls://192.0.2.53", upstreams.Endpoint("192.0.2.53", 853, "")),
        ("tls://[2001:db8::53]:8853#dns.example", upstreams.Endpoint("2001:db8::53", 8853, "dns.example")),
    ],
)
def test_upstreams_are_written_like_this(text: str, expected: upstreams.Endpoint) -> None:
    """An address, perhaps a port; over TLS perhaps the name that its certificate has."""
    assert upstreams.parse(text) == expected


# ── hosts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_hosts_override_the_world() -> None:
    """A name with addresses given by hand: both families decided here, aliases and search paths lead to it too."""
    answers = new_zone()
    answers.set_hosts({"db.corp.example": ["192.0.2.10", "192.0.2.11"]})
    put(answers, service("db", external="db.corp.example"))
    assert texts(ask(answers, "DB.corp.example")) == ["A 192.0.2.10", "A 192.0.2.11"]
    assert texts(ask(answers, "db.corp.example", "AAAA")) == []
    assert texts(ask(answers, "db." + SVC)) == ["A 192.0.2.10", "A 192.0.2.11", "CNAME db.corp.example."]
    one = forwarder()
    query = dns.message.make_query("db.corp.example." + SVC, "A").to_wire()
    reply = await Resolver(answers, one).answer(query, tcp=False, namespace=b"default")
    assert reply is not None
    assert "A 192.0.2.10" in texts(dns.message.from_wire(reply))


def test_hosts_in_the_zone_are_refused() -> None:
    """The zone's names are the Services'."""
    with pytest.raises(ValueError, match="in the zone"):
        new_zone().set_hosts({"web." + SVC: ["192.0.2.1"]})
