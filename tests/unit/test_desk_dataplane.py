"""The desk's balancers: their rules, PROXY headers, health checks, and the name server."""

from __future__ import annotations

import asyncio
import ssl
import struct
from ipaddress import IPv4Network
from pathlib import Path

import dns.message
import dns.rcode

from kubesvc.box.clouddns import answer
from kubesvc.box.pki import Authority
from kubesvc.loadbalancer.desk.forwarders import Forwarders
from kubesvc.loadbalancer.desk.health import Health
from kubesvc.loadbalancer.desk.proxyprotocol import header
from kubesvc.loadbalancer.desk.rules import chains
from kubesvc.loadbalancer.providers.desk.model import Balancer, Check, Listener, Target
from support.box import eventually
from support.ports import free_port

NODES = (Target(name="a", address="172.29.0.2"), Target(name="b", address="172.29.0.3"))
INSIDE = (IPv4Network("172.29.0.0/24"),)


def rules(balancer: Balancer, nodes: tuple[Target, ...] = NODES) -> dict[str, list[str]]:
    found = chains([balancer], lambda _b, _l: nodes, INSIDE, "172.29.0.254")
    return {chain.name: [rule.text for rule in chain.rules] for chain in found}


def balancer(mode: str, **more: object) -> Balancer:
    listener = Listener(protocol="TCP", port=80, node_port=30080, mode=mode)
    return Balancer(uid="u", service="a/b", address="172.29.0.200", listeners=(listener,), **more)  # type: ignore[arg-type]


def test_every_node_gets_an_equal_share() -> None:
    at = "ip daddr 172.29.0.200 tcp dport 80 ct state new ct mark 0"
    found = rules(balancer("nat"))
    assert [" ".join(text.split()) for text in found["translate"]] == [
        f"{at} numgen random mod 2 0 dnat ip to 172.29.0.2:30080",
        f"{at} dnat ip to 172.29.0.3:30080",
    ]
    found = rules(balancer("vip"))
    assert found["translate"] == []
    assert found["choose"][0].endswith("numgen random mod 2 0 ct mark set 0x401d0002")
    found = rules(balancer("nat", affinity=True))
    assert ["jhash ip saddr mod 2 1" in text for text in found["translate"]] == [False, True]


def test_without_a_node_new_connections_are_dropped() -> None:
    found = rules(balancer("vip"), ())
    assert found["choose"][0] == "ip daddr 172.29.0.200 tcp dport 80 ct state new drop"


def test_an_internal_balancer_and_sources_are_guarded() -> None:
    assert rules(balancer("nat"))["guard"] == []
    found = rules(balancer("nat", internal=True))
    assert found["guard"] == ["ip daddr 172.29.0.200 jump allowed-0"]
    assert found["allowed-0"] == ["ip saddr 172.29.0.254 drop", "ip saddr 172.29.0.0/24 return", "drop"]
    assert rules(balancer("nat", sources=("192.0.2.0/24",)))["allowed-0"] == ["ip saddr 192.0.2.0/24 return", "drop"]


def test_only_ports_whose_connections_end_here_are_open() -> None:
    assert rules(balancer("nat"))["own"] == ["ip daddr 172.29.0.200 drop"]
    assert rules(balancer("proxy"))["own"][0] == "ip daddr 172.29.0.200 tcp dport 80 accept"


def test_the_proxy_header_is_version_two() -> None:
    """Signature, version and command, family, length; addresses and ports in network order."""
    said = header(("192.0.2.1", 40000), ("172.29.0.200", 80))
    assert said[:12] == b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
    assert said[12:16] == b"\x21\x11\x00\x0c"
    assert said[16:] == bytes((192, 0, 2, 1, 172, 29, 0, 200)) + struct.pack(">HH", 40000, 80)


async def test_a_node_is_believed_after_some_answers_in_a_row() -> None:
    """Healthy after so many good answers, unhealthy after so many bad ones."""
    status = {"code": 200}
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readline()
        writer.write(f"HTTP/1.1 {status['code']} X\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    check = Check(
        protocol="http", port=server.sockets[0].getsockname()[1], interval=0.1, timeout=600, healthy=3, unhealthy=2
    )
    changed = asyncio.Event()
    health = Health(10, changed.set)
    try:
        assert health.is_healthy("127.0.0.1", None)
        health.watch([("127.0.0.1", check)])
        assert not health.is_healthy("127.0.0.1", check)
        await asyncio.wait_for(changed.wait(), 60)
        assert health.is_healthy("127.0.0.1", check)
        assert asked >= 3
        changed.clear()
        status["code"], asked = 503, 0
        await asyncio.wait_for(changed.wait(), 60)
        assert not health.is_healthy("127.0.0.1", check)
        assert asked >= 2
    finally:
        health.close()
        server.close()
        await server.wait_closed()


HOST = "k8s-a-b-1.elb.us-east-1.desk.kubesvc"


def ask(name: str, kind: str = "A") -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=True)
    said = answer(query.to_wire(), {HOST: "172.29.0.200"})
    assert said is not None
    found = dns.message.from_wire(said)
    assert query.is_response(found)
    return found


def test_the_name_server_knows_the_balancers() -> None:
    found = ask(HOST.upper())
    assert [rdata.to_text() for rdata in found.answer[0]] == ["172.29.0.200"]
    assert (ask(HOST, "AAAA").rcode(), ask(HOST, "AAAA").answer) == (dns.rcode.NOERROR, [])
    assert ask("elb.us-east-1.desk.kubesvc").rcode() == dns.rcode.NOERROR
    assert ask("nobody.elb.us-east-1.desk.kubesvc").rcode() == dns.rcode.NXDOMAIN
    assert ask("nobody.desk.kubesvc").authority
    assert ask("example.com").rcode() == dns.rcode.REFUSED
    assert answer(b"\0" * 5, {}) is None


async def test_a_listener_presents_the_certificate_that_was_renewed(tmp_path: Path) -> None:
    authority, port = Authority(tmp_path), free_port()
    certificate = authority.ensure("cloud", "cloud", hosts=["localhost"])
    listener = Listener(protocol="TCP", port=port, node_port=30080, mode="proxy", tls=True)
    forwarders = Forwarders(lambda _b, _l: (), certificate)

    def presented() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=60)

    try:
        forwarders.keep([Balancer(uid="u", service="a/b", address="127.0.0.1", listeners=(listener,))])
        first = await asyncio.to_thread(presented)
        authority.ensure("cloud", "cloud", hosts=["localhost", "elsewhere"])
        await asyncio.to_thread(eventually, lambda: presented() != first, 60, "another is presented")
        assert (await asyncio.to_thread(presented)).strip() in certificate.read_text()
    finally:
        forwarders.keep([])
