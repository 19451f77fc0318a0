"""A node's DNS against a real API server: public names follow the status, and Events say what is wrong with names."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.rrset
import msgspec
import pytest

from kubesvc.api.core import Service, ServicePort, ServiceSpec
from kubesvc.api.meta import JSON, ObjectMeta
from kubesvc.api.registry import EVENT, SERVICE
from kubesvc.client.session import Session
from kubesvc.dns.config import plain_socket
from kubesvc.dns.external import Examiner, Unknown, covers, is_elsewhere, speaks
from kubesvc.dns.public import Finding
from support.agents import add_node
from support.apiserver import local_session
from support.certificates import Authority
from support.dns_node import SVC, Node, node
from support.dns_upstream import upstream

SECOND = 1.0  # of this process' own work, the asking included: what others do on the machine isn't ours


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as one:
        yield one


def balanced(name: str, hostnames: str) -> JSON:
    return {
        "metadata": {"name": name, "namespace": "default", "annotations": {"kubesvc.dev/hostname": hostnames}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }


async def set_ingress(session: Session, name: str, *ingress: JSON) -> None:
    patch = {"status": {"loadBalancer": {"ingress": list(ingress)}}}
    await session.patch(SERVICE, "default", name, patch, subresource="status")


async def said(session: Session, name: str, reason: str, *, namespace: str = "default") -> str:
    """The message of the newest Event about a Service for this reason, waited for."""
    async with asyncio.timeout(60):
        while True:
            found = await session.list_raw(EVENT, namespace=namespace)
            events = [msgspec.json.decode(raw) for raw in found.items]
            ours = [e for e in events if e["involvedObject"]["name"] == name and e["reason"] == reason]
            if ours:
                assert ours[-1]["source"]["component"] == "kubesvc-dns"
                assert ours[-1]["involvedObject"]["uid"]
                return str(ours[-1]["message"])
            await asyncio.sleep(0.02)  # between two looks


async def test_public_name_follows_the_status_within_a_second(session: Session) -> None:
    """Pending, an address, another, a host name, gone."""
    async with node(session, public_zones={"example.com": ()}) as one:
        await session.create(SERVICE, balanced("shop", "shop.example.com"))
        await one.until("shop.example.com.", "A", rcode="NXDOMAIN")
        for ingress, kind, expected in (
            ({"ip": "192.0.2.7"}, "A", "A 192.0.2.7"),
            ({"ip": "192.0.2.8"}, "A", "A 192.0.2.8"),
            ({"hostname": "lb.cloud.example"}, "CNAME", "CNAME lb.cloud.example."),
        ):
            began = time.process_time()
            await set_ingress(session, "shop", ingress)
            await one.until("shop.example.com.", kind, expected)
            assert time.process_time() - began < SECOND
        await session.delete(SERVICE, "default", "shop")
        await one.until("shop.example.com.", "A", rcode="NXDOMAIN")


async def test_name_passes_to_the_next_service_when_its_holder_goes(session: Session) -> None:
    """The older has it; the other is told, and gets it."""
    async with node(session, public_zones={"example.com": ()}) as one:
        await session.create(SERVICE, balanced("a-shop", "shop.example.com"))
        await set_ingress(session, "a-shop", {"ip": "192.0.2.7"})
        await session.create(SERVICE, balanced("b-shop", "shop.example.com"))
        await set_ingress(session, "b-shop", {"ip": "192.0.2.8"})
        assert "belongs to default/a-shop" in await said(session, "b-shop", "HostnameConflict")
        await one.until("shop.example.com.", "A", "A 192.0.2.7")
        await session.delete(SERVICE, "default", "a-shop")
        await one.until("shop.example.com.", "A", "A 192.0.2.8")
        assert "shop.example.com A 192.0.2.8" in await said(session, "b-shop", "HostnameServed")


async def test_events_say_what_to_do_about_public_names(session: Session) -> None:
    """A record to create elsewhere; no alias at an apex."""
    async with node(session, public_zones={"example.com": ()}):
        await session.create(SERVICE, balanced("shop", "shop.example.org,example.com"))
        await set_ingress(session, "shop", {"hostname": "lb.cloud.example"})
        needed = await said(session, "shop", "DNSRecordNeeded")
        assert needed.endswith("shop.example.org. 300 IN CNAME lb.cloud.example.")
        assert "no CNAME can be" in await said(session, "shop", "HostnameAtApex")


async def test_external_name_that_leads_nowhere_is_said_and_a_new_target_is_served_within_a_second(
    session: Session,
) -> None:
    """An address, a name that doesn't exist; then the right one."""
    async with upstream() as above, node(session, upstreams=(above.address,)) as one:
        spec = {"type": "ExternalName", "externalName": "192.0.2.1"}
        await session.create(SERVICE, {"metadata": {"name": "ext", "namespace": "default"}, "spec": spec})
        assert "192.0.2.1 is an address" in await said(session, "ext", "ExternalNameIsAddress")
        await session.patch(SERVICE, "default", "ext", {"spec": {"externalName": "gone.example.com"}})
        unresolved = await said(session, "ext", "ExternalNameUnresolved")
        assert "gone.example.com does not exist" in unresolved
        began = time.process_time()
        await session.patch(SERVICE, "default", "ext", {"spec": {"externalName": "www.example.com"}})
        await one.until(f"ext.{SVC}", "A", "A 192.0.2.7", "CNAME www.example.com.")
        assert time.process_time() - began < SECOND


async def test_forwarding_loop_is_an_event_of_kube_dns(session: Session) -> None:
    """What is asked of the upstream comes back: said with the remedy, where `kubectl describe` shows it."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    tree = {"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": {"ports": ports}}
    await session.create(SERVICE, tree)
    listening: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
    asked = set()

    async def ask(name: str) -> None:
        await (await listening).ask(name, "HINFO")

    def back(query: dns.message.Message) -> None:
        """To the server again, while the asker waits."""
        asked.add(asyncio.ensure_future(ask(query.question[0].name.to_text())))

    async with upstream() as above:
        above.reply = back
        async with node(session, upstreams=(above.address,)) as one:
            listening.set_result(one)
            message = await said(session, "kube-dns", "ForwardingLoop", namespace="kube-system")
            await asyncio.gather(*asked, return_exceptions=True)
    assert above.address.replace(":", " port ") in message
    assert "--forward" in message


async def test_one_of_several_servers_speaks(session: Session) -> None:
    """Two nodes, one Event."""
    for name in ("node1", "node2"):
        await add_node(session, name)
    kube_dns = {"clusterIP": "None", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}
    await session.create(SERVICE, {"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": kube_dns})
    async with (
        node(session, "node1", node_ip="172.29.7.2") as one,
        node(session, "node2", node_ip="172.29.7.3") as other,
    ):
        for each in (one, other):  # who doesn't know of the others yet speaks, too
            await each.until("kube-dns.kube-system.svc.cluster.local.", "A", "A 172.29.7.2", "A 172.29.7.3")
        spec = {"type": "ExternalName", "externalName": "192.0.2.1"}
        for number in range(5):
            tree = {"metadata": {"name": f"ext-{number}", "namespace": "default"}, "spec": spec}
            await session.create(SERVICE, tree)
        for number in range(5):
            await said(session, f"ext-{number}", "ExternalNameIsAddress")
        found = await session.list_raw(EVENT, namespace="default")
        assert sum(b"ExternalNameIsAddress" in bytes(raw) for raw in found.items) == 5


# ── the examiner, against stand-ins ──────────────────────────────────────────────────────────────────────────────────

OWN = "ext.default.svc.cluster.local"


def external(port: int, name: str = "http") -> Service:
    return Service(
        metadata=ObjectMeta(name="ext", namespace="default"),
        spec=ServiceSpec(
            type="ExternalName", external_name="api.example.com", ports=[ServicePort(name=name, port=port)]
        ),
    )


async def on_loopback(query: bytes) -> bytes:
    """api.example.com, and the alias for it, are 127.0.0.1."""
    reply = dns.message.make_response(dns.message.from_wire(query))
    if "A" in reply.question[0].to_text().split():
        reply.answer.append(dns.rrset.from_text(reply.question[0].name, 5, "IN", "A", "127.0.0.1"))
    return reply.to_wire()


def examiner(**options: object) -> Examiner:
    return Examiner(on_loopback, plain_socket, "cluster.local", may_ask=lambda address: True, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def web(knows: dict[str, int], tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP server that answers a Host with its status, others with 404; its port, and the Hosts it saw."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            host = next(line[6:] for line in request.splitlines() if line.lower().startswith("host: "))
            seen.append(host)
            writer.write(f"HTTP/1.1 {knows.get(host, 404)} -\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("knows", "refused"),
    [({"api.example.com": 200}, True), ({"api.example.com": 200, OWN: 200}, False), ({}, False)],
    ids=["its own name alone", "any name", "not even its own"],
)
async def test_http_server_that_refuses_the_services_name(knows: dict[str, int], refused: bool) -> None:
    """Only what differs between the names says something about names."""
    async with web(knows) as (port, seen):
        found = await examiner().findings(external(port))
        assert sorted(seen) == ["api.example.com", OWN]
    assert [one.reason for one in found] == (["ExternalNameRefusesHost"] if refused else [])
    assert all("have clients send Host: api.example.com" in one.message for one in found)


@pytest.mark.parametrize(
    ("names", "refused"),
    [(("api.example.com",), True), (("api.example.com", "ext"), False), (("*.default.svc.cluster.local",), False)],
)
async def test_certificate_that_is_not_for_the_services_name(
    tmp_path: Path, names: tuple[str, ...], refused: bool
) -> None:
    """A client that verifies it would refuse."""
    Authority(tmp_path).serving("server", *names)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    async with web({}, context) as (port, _):
        found = await examiner().findings(external(port, "https"))
    assert [one.reason for one in found] == (["ExternalNameRefusesTLSName"] if refused else [])
    assert all("use the TLS name api.example.com" in one.message for one in found)


async def test_server_is_not_asked_where_that_is_not_wanted() -> None:
    """Switched off; a port that doesn't say HTTP; an address of this machine."""
    async with web({"api.example.com": 200}) as (port, seen):
        assert await examiner(probe=False).findings(external(port)) == []
        assert await examiner().findings(external(port, "grpc")) == []
        assert await Examiner(on_loopback, plain_socket, "cluster.local").findings(external(port)) == []
        assert seen == []


async def test_nobody_is_blamed_when_nobody_can_say() -> None:
    """SERVFAIL isn't a verdict."""

    async def failing(query: bytes) -> bytes:
        reply = dns.message.make_response(dns.message.from_wire(query))
        reply.set_rcode(2)
        return reply.to_wire()

    with pytest.raises(Unknown):
        await Examiner(failing, plain_socket, "cluster.local").findings(external(80))


async def test_name_without_an_address_is_unresolved() -> None:
    """NODATA in both families."""

    async def empty(query: bytes) -> bytes:
        return dns.message.make_response(dns.message.from_wire(query)).to_wire()

    (found,) = await Examiner(empty, plain_socket, "cluster.local").findings(external(80))
    assert isinstance(found, Finding)
    assert "has no address" in found.message


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (ServicePort(port=80), "http"),
        (ServicePort(port=443), "https"),
        (ServicePort(port=5432), ""),
        (ServicePort(name="http-admin", port=9000), "http"),
        (ServicePort(name="https", port=8443), "https"),
        (ServicePort(app_protocol="https", name="web", port=9443), "https"),
    ],
)
def test_port_that_says_http(port: ServicePort, expected: str) -> None:
    """By protocol, name or number."""
    assert speaks(port) == expected


def test_certificate_names() -> None:
    """A star is one label."""
    assert covers("*.example.com", "a.example.com")
    assert not covers("*.example.com", "a.b.example.com")
    assert not covers("*.example.com", "example.com")
    assert covers("API.example.com", "api.example.com")


@pytest.mark.parametrize(
    ("address", "elsewhere"),
    [("127.0.0.1", False), ("169.254.169.254", False), ("::1", False), ("10.0.0.1", True), ("192.0.2.1", True)],
)
def test_addresses_that_lead_back_here_are_not_asked(address: str, elsewhere: bool) -> None:
    """Loopback and link-local: the machine's own ports, and clouds' metadata."""
    assert is_elsewhere(ipaddress.ip_address(address)) is elsewhere
