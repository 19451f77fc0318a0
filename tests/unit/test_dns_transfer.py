"""Zones as a whole: AXFR read by dig and dnspython, IXFR, and NSD as a secondary that follows."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zone
import pytest

from kubesvc.dns import wire
from kubesvc.dns.config import plain_socket
from kubesvc.dns.notify import Notifier
from kubesvc.dns.records import Record
from support.dns_serving import Running, serving
from support.dns_table import CLUSTER_4, NETWORKS, PODS_6, ZONE, cluster
from support.dns_zone import put, service, take
from support.nsd import nsd

LOOPBACK = ("127.0.0.0/8", "::1/128")
DEADLINE = 60.0


def wire_a(name: str, address: str = "192.0.2.7") -> Record:
    return Record(wire.encode_name(name), wire.A, socket.inet_aton(address), 5)


async def dig(one: Running, *words: str) -> str:
    command = ["dig", "+nocmd", "+time=60", "+tries=1", "@127.0.0.1", "-p", str(one.port), *words]
    made = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await made.communicate()
    return out.decode()


async def transferred(one: Running, origin: str) -> dns.zone.Zone:
    """The zone, as dnspython receives it."""
    return await asyncio.to_thread(
        lambda: dns.zone.from_xfr(
            dns.query.xfr("127.0.0.1", origin, port=one.port, lifetime=DEADLINE, relativize=False), relativize=False
        )
    )


@pytest.mark.parametrize(
    ("origin", "present", "absent"),
    [
        (ZONE, f"db-0.db.default.svc.{ZONE} A", "in-addr.arpa"),
        (ZONE, f"_http._tcp.web.default.svc.{ZONE} SRV", "10-0-0-1.default.pod"),
        (CLUSTER_4, f"20.0.{CLUSTER_4} PTR", "244.10.in-addr.arpa"),
        (PODS_6, f"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.{PODS_6} PTR", "in-addr.arpa"),
        ("example.com.", "shop.example.com. A", "cluster.local. SRV"),
    ],
)
async def test_allowed_client_gets_the_whole_zone(origin: str, present: str, absent: str) -> None:
    """SOA first and last, each of the zone's records once, none of another's."""
    answers = cluster(public={"example.com": ()})
    answers.publish(
        wire.encode_name("shop.example.com"), [wire_a("shop.example.com"), wire_a("shop.example.com", "192.0.2.8")]
    )
    async with serving(answers=answers, transfer_to=LOOPBACK) as one:
        text = await dig(one, origin, "AXFR")
        lines = [" ".join(line.split()) for line in text.splitlines() if line and not line.startswith(";")]
        short = [" ".join([(words := line.split(" ", 4))[0], words[3]]) for line in lines]
        assert lines[0] == lines[-1]
        assert short[0] == f"{origin} SOA"
        assert len(set(lines)) == len(lines) - 1
        assert present in short
        assert not any(absent in line.split(" ", 1)[0] for line in short)
        zone = await transferred(one, origin)
        zone.check_origin()
        assert sum(len(rds) for _, rds in zone.iterate_rdatasets()) == len(lines) - 1


async def test_everything_that_is_transferred_is_answered_alike() -> None:
    """What a secondary would say of each name is what we say."""
    async with serving(answers=cluster(), transfer_to=LOOPBACK) as one:
        zone = await transferred(one, ZONE)
        for name, rdataset in zone.iterate_rdatasets():
            reply = await one.tcp(name.to_text(), dns.rdatatype.to_text(rdataset.rdtype))
            assert set(reply.answer[0]) == set(rdataset), name


async def test_large_zone_comes_in_several_messages() -> None:
    """3,000 Services: more than one message holds, nothing lost."""
    answers = cluster()
    for number in range(3000):
        put(answers, service(f"many-{number}", f"10.96.{1 + number // 250}.{number % 250}"))
    async with serving(answers=answers, transfer_to=LOOPBACK) as one:
        found = await asyncio.to_thread(
            lambda: [len(m.answer) for m in dns.query.xfr("127.0.0.1", ZONE, port=one.port, lifetime=DEADLINE)]
        )
        assert len(found) > 10
        zone = await transferred(one, ZONE)
        assert sum("many-" in name.to_text() and "_" not in name.to_text() for name in zone.nodes) == 3000


@pytest.mark.parametrize(
    ("allowed", "origin", "rcode"),
    [
        ((), ZONE, "REFUSED"),
        (("192.0.2.0/24",), ZONE, "REFUSED"),
        (LOOPBACK, f"svc.{ZONE}", "NOTAUTH"),
        (LOOPBACK, "example.com.", "NOTAUTH"),
    ],
)
async def test_others_are_refused(allowed: tuple[str, ...], origin: str, rcode: str) -> None:
    """Nobody by default; nobody gets what is no zone of ours."""
    async with serving(answers=cluster(), transfer_to=allowed) as one:
        for kind in ("AXFR", "IXFR"):
            query = dns.message.make_query(origin, kind)
            reply = await dns.asyncquery.tcp(query, "127.0.0.1", port=one.port, timeout=DEADLINE, one_rr_per_rrset=True)
            assert dns.rcode.to_text(reply.rcode()) == rcode
            assert not reply.answer


async def test_axfr_over_udp_is_refused() -> None:
    """Also for who is allowed."""
    async with serving(answers=cluster(), transfer_to=LOOPBACK) as one:
        assert (await one.udp(ZONE, "AXFR")).rcode() == dns.rcode.REFUSED


async def test_ixfr_is_the_soa_over_udp_and_for_who_is_current_else_the_whole_zone() -> None:
    """The forms of RFC 1995 that need no history."""
    answers = cluster()
    answers.set_serial(7)
    async with serving(answers=answers, transfer_to=LOOPBACK) as one:
        for serial, whole in ((answers.serial, False), (answers.serial - 1, True)):
            found = await asyncio.to_thread(
                lambda serial=serial: [
                    rrset
                    for message in dns.query.xfr(
                        "127.0.0.1", ZONE, "IXFR", port=one.port, serial=serial, lifetime=DEADLINE, relativize=False
                    )
                    for rrset in message.answer
                ]
            )
            assert (len(found) > 1) is whole
        udp = await one.udp(ZONE, "IXFR")
        assert [dns.rdatatype.to_text(rrset.rdtype) for rrset in udp.answer] == ["SOA"]
        assert udp.answer[0][0].serial == answers.serial


async def test_change_during_a_transfer_does_not_mix_two_revisions() -> None:
    """Records are gathered anew: either both Services of a change are there, or none."""
    answers = cluster()
    for number in range(1000):
        put(answers, service(f"many-{number}", f"10.96.{1 + number // 250}.{number % 250}"))
    async with serving(answers=answers, transfer_to=LOOPBACK) as one:
        asking = asyncio.create_task(transferred(one, ZONE))
        turns = 0
        while not asking.done():
            for name in ("aaa", "zzz"):
                put(answers, service(name, "10.96.200.1")) if turns % 2 == 0 else take(answers, "default", name)
            turns += 1
            await asyncio.sleep(0)
        zone = await asking
        there = [zone.get_node(f"{name}.default.svc.{ZONE}") is not None for name in ("aaa", "zzz")]
        assert there[0] == there[1]
        assert turns > 10


# ── a secondary ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def until(port: int, name: str, expected: list[str] | str) -> None:
    """Ask the secondary until it says so."""
    found: object = None
    try:
        async with asyncio.timeout(DEADLINE):
            while found != expected:
                query = dns.message.make_query(name, "A")
                try:
                    reply = await dns.asyncquery.udp(query, "127.0.0.1", port=port, timeout=2)
                    found = [str(one) for rrset in reply.answer for one in rrset] or dns.rcode.to_text(reply.rcode())
                except (OSError, dns.exception.DNSException) as error:
                    found = error
                await asyncio.sleep(0.02)  # between two looks
    except TimeoutError:
        raise AssertionError(f"{name}: {found!r} after {DEADLINE} s; expected {expected}") from None


@pytest.mark.parametrize("how", ["", "AXFR "], ids=["IXFR first", "AXFR"])
async def test_nsd_follows_as_a_secondary(tmp_path: Path, how: str) -> None:
    """It fetches every zone, hears of a change by NOTIFY, and serves it."""
    answers = cluster(public={"example.com": ()})
    answers.set_serial(10)
    async with serving(answers=answers, transfer_to=LOOPBACK) as one:
        zones = [zone.text for zone in answers.zones]
        assert len(zones) == 2 + len(NETWORKS)
        with nsd(tmp_path, zones, "127.0.0.1", one.port, how=how) as port:
            await until(port, f"db-0.db.default.svc.{ZONE}", ["10.244.1.5"])
            await until(port, "shop.example.com.", "NXDOMAIN")  # this zone is there, too
            notifier = Notifier([f"127.0.0.1:{port}"], plain_socket)
            telling = asyncio.create_task(notifier.run())
            try:
                put(answers, service("new", "10.96.0.99"))
                answers.publish(wire.encode_name("shop.example.com"), [wire_a("shop.example.com")])
                notifier.changed(answers.set_serial(11))
                await until(port, f"new.default.svc.{ZONE}", ["10.96.0.99"])
                await until(port, "shop.example.com.", ["192.0.2.7"])
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)


async def test_notify_is_repeated_until_it_is_answered() -> None:
    """One message for changes that come together; again when the secondary is silent."""
    got: list[dns.message.Message] = []
    done = asyncio.Event()

    class Secondary(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
            got.append(dns.message.from_wire(data))
            if len(got) == 2:
                self.transport.sendto(dns.message.make_response(got[-1]).to_wire(), peer)
                done.set()

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Secondary, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    notifier = Notifier([f"127.0.0.1:{port}"], plain_socket, wait=0.5)
    telling = asyncio.create_task(notifier.run())
    zone = cluster().zones.clusters[0]
    for _ in range(3):
        notifier.changed([zone])
    async with asyncio.timeout(60):
        await done.wait()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    transport.close()
    assert [one.opcode() for one in got] == [dns.opcode.NOTIFY] * 2
    assert got[0].id == got[1].id
    assert got[0].flags & dns.flags.AA
    assert {one.question[0].to_text() for one in got} == {"cluster.local. IN SOA"}
