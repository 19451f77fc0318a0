"""A pod's search path, completed by the server in one round trip."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import dns.message
import dns.rcode
import pytest

from kubesvc.api.meta import JSON
from kubesvc.api.registry import NAMESPACE, POD
from kubesvc.client.session import Session
from kubesvc.dns import wire
from kubesvc.dns.answers import Alias, Answers, Guess
from kubesvc.dns.clients import Clients, VerifiedPods, packed
from kubesvc.dns.entry import Entry, render
from support.apiserver import local_session
from support.dns_serving import DEADLINE, SVC, Clock, Running, serving
from support.dns_zone import ask, new_zone, put, service, small_cluster, take, texts

CLIENT = bytes([127, 0, 0, 1])


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A server that knows its client as a pod of `default`; there is a Service other/shop too."""
    async with serving({CLIENT: b"default"}) as one:
        one.answers.set_namespace("other", exists=True)
        put(one.answers, service("shop", "10.96.0.77", namespace="other"))
        put(one.answers, service("far", external="www.example.com", namespace="other"))
        yield one


@pytest.mark.parametrize(
    ("name", "meant", "address"),
    [
        ("shop.other." + SVC, "shop.other.svc.cluster.local.", "10.96.0.77"),
        ("shop.other.svc." + SVC, "shop.other.svc.cluster.local.", "10.96.0.77"),
        (f"shop.other.svc.cluster.local.{SVC}", "shop.other.svc.cluster.local.", "10.96.0.77"),
        (f"web.{SVC}{SVC}", "web." + SVC, "10.96.0.20"),
        ("www.example.com." + SVC, "www.example.com.", "192.0.2.7"),
    ],
)
async def test_first_question_of_a_search_is_answered_with_what_it_leads_to(
    running: Running, name: str, meant: str, address: str
) -> None:
    """CNAME to the name that exists, and its address; no CNAME where there is no address of the family."""
    reply = await running.udp(name)
    assert texts(reply) == [f"A {address}", f"CNAME {meant}"]
    assert str(reply.answer[0].name) == name
    empty = await running.udp(name, "AAAA")
    assert (texts(empty), empty.rcode()) == ([], dns.rcode.NOERROR)
    assert str(empty.authority[0].name) == "cluster.local."
    assert texts(await running.tcp(name)) == [f"A {address}", f"CNAME {meant}"]


async def test_alias_in_the_zone_is_followed_from_the_search_path(running: Running) -> None:
    """An ExternalName of another namespace, by its short name: both links and the upstream's address."""
    reply = await running.udp("far.other." + SVC)
    assert texts(reply) == ["A 192.0.2.7", "CNAME far.other.svc.cluster.local.", "CNAME www.example.com."]
    empty = await running.udp("far.other." + SVC, "AAAA")
    assert (texts(empty), empty.rcode()) == ([], dns.rcode.NOERROR)
    assert str(empty.authority[0].name) == "cluster.local."


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("gone." + SVC, id="one label: a Service of this namespace or none"),
        pytest.param("db-7.db." + SVC, id="an endpoint of a Service that is there"),
        pytest.param("gone.other." + SVC, id="in the zone, and not there either"),
        pytest.param(f"gone.other.svc.cluster.local.{SVC}", id="whole, and not there"),
        pytest.param("other." + SVC, id="a namespace has no address"),
        pytest.param("shop.other.svc.cluster.local.other.svc.cluster.local.", id="another namespace's search path"),
        pytest.param("unknown.example.com." + SVC, id="the upstream says no"),
    ],
)
async def test_what_leads_nowhere_does_not_exist(running: Running, name: str) -> None:
    """NXDOMAIN with the zone's SOA, as to everybody."""
    reply = await running.udp(name)
    assert (reply.rcode(), texts(reply)) == (dns.rcode.NXDOMAIN, [])
    assert str(reply.authority[0].name) == "cluster.local."


async def test_names_beside_an_endpoint_never_leave_the_cluster(running: Running) -> None:
    """A pod that isn't ready must not become whatever the world has under its name."""
    await running.udp("db-7.db." + SVC)
    await running.udp("gone." + SVC)
    assert running.above.asked == []


async def test_silent_upstream_makes_it_not_exist(running: Running) -> None:
    """The client goes on to ask for the name itself, and learns there that it can't be had."""
    running.silence()
    assert (await running.udp("www.example.com." + SVC)).rcode() == dns.rcode.NXDOMAIN


async def test_unknown_client_gets_the_plain_answer() -> None:
    """Whose namespace isn't known is not guessed at."""
    async with serving() as one:
        assert (await one.udp("www.example.com." + SVC)).rcode() == dns.rcode.NXDOMAIN
        assert one.above.asked == []


def find(answers: Answers, name: str, kind: int = wire.A) -> object:
    return answers.find(wire.question(wire.encode_name(name), kind), b"default")


def test_the_hosts_search_domains_come_before_the_name_itself() -> None:
    """In the order a resolver would try them."""
    answers = small_cluster()
    answers._searches = (wire.encode_name("corp.example"),)
    found = find(answers, "git.dev." + SVC)
    assert isinstance(found, Guess)
    assert found.targets == (wire.encode_name("git.dev.corp.example"), wire.encode_name("git.dev"))


def test_only_addresses_are_completed() -> None:
    """SRV, TXT and the like are asked by programs that know the whole name."""
    found = find(small_cluster(), "www.example.com." + SVC, wire.SRV)
    assert isinstance(found, Entry)
    assert found.rcode == wire.NXDOMAIN


def test_nothing_is_completed_before_the_caches_have_synced() -> None:
    """SERVFAIL: an absent name may be there in a moment."""
    answers = small_cluster()
    answers.synced = False
    found = find(answers, "www.example.com." + SVC)
    assert isinstance(found, Entry)
    assert found.rcode == wire.SERVFAIL


def test_completed_and_absent_names_follow_the_world() -> None:
    """They are kept until something changes, each asker's apart."""
    answers = new_zone()
    name = "shop.other." + SVC
    absent = find(answers, name)
    assert isinstance(absent, Guess)
    assert find(answers, name) is absent
    assert ask(answers, name).rcode() == dns.rcode.NXDOMAIN
    answers.set_namespace("other", exists=True)
    put(answers, service("shop", "10.96.0.77", namespace="other"))
    found = find(answers, name)
    assert isinstance(found, Entry)
    assert found.rcode == wire.NOERROR
    assert ask(answers, name).rcode() == dns.rcode.NXDOMAIN
    take(answers, "other", "shop")
    assert find(answers, name) != found
    answers.synced = False
    assert find(answers, name).rcode == wire.SERVFAIL  # type: ignore[attr-defined]


def test_chain_that_loops_from_the_search_path_ends() -> None:
    """Links are bounded however one comes to them."""
    answers = new_zone()
    put(answers, service("loop", external=f"loop.{SVC}"))
    found = find(answers, f"loop.{SVC}{SVC}")
    assert isinstance(found, Entry)
    assert found.rcode == wire.NOERROR
    assert not isinstance(found, Alias)


def test_completed_answer_fits_the_client() -> None:
    """A long chain to many addresses is cut to the client's size, with TC."""
    answers = small_cluster()
    query = wire.Query(b"ab", 0x0100, wire.question(wire.encode_name(f"db.{SVC}{SVC}"), wire.A), 512)
    found = answers.find(query.question, b"default")
    assert isinstance(found, Entry)
    reply = dns.message.from_wire(render(query, found, 512))
    assert texts(reply) == ["A 10.244.1.5", "A 10.244.2.6", "CNAME db." + SVC]


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def pod(name: str, namespace: str = "default", **spec: object) -> JSON:
    container = {"name": "main", "image": "host"}
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": "node1", "containers": [container], **spec},
    }


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as one:
        yield one


async def test_clients_are_the_nodes_pods_with_the_usual_search_path(session: Session) -> None:
    """Known by address: pods of this node; not those of others, of the node's network, or with another path."""
    made = {
        "mine": pod("mine"),
        "shop": pod("shop", "shop"),
        "elsewhere": pod("elsewhere", nodeName="node2"),
        "host": pod("host", hostNetwork=True),
        "machine": pod("machine", dnsPolicy="Default"),
        "special": pod("special", dnsConfig={"searches": ["corp.example"]}),
    }
    await session.create(NAMESPACE, {"metadata": {"name": "shop"}})
    clients = Clients(session, "node1")
    task = asyncio.create_task(clients.run())
    try:
        for number, tree in enumerate(made.values(), start=1):
            await session.create(POD, tree)
            status = {"status": {"phase": "Running", "podIP": f"10.244.1.{number}"}}
            status["status"]["podIPs"] = [{"ip": f"10.244.1.{number}"}]  # type: ignore[assignment]
            meta = tree["metadata"]
            await session.patch(POD, meta["namespace"], meta["name"], status, subresource="status")
        async with asyncio.timeout(DEADLINE):
            await clients.pods.until(lambda: len([p for p in clients.pods.items.values() if p.status.pod_ips]) == 5)
        assert clients.namespaces == {bytes([10, 244, 1, 1]): b"default", bytes([10, 244, 1, 2]): b"shop"}
        await session.delete(POD, "shop", "shop", grace_seconds=0)
        async with asyncio.timeout(DEADLINE):
            await clients.pods.until(lambda: len(clients.pods.items) == 4)
        assert clients.namespaces == {bytes([10, 244, 1, 1]): b"default"}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_pod_of_another_node_is_looked_up_when_it_asks(session: Session) -> None:
    """Its server is away: the first question finds out who it is. Outside the pods' network nobody is looked up."""
    status = {"status": {"phase": "Running", "podIP": "10.244.2.9", "podIPs": [{"ip": "10.244.2.9"}]}}
    await session.create(POD, pod("far", nodeName="node2"))
    await session.patch(POD, "default", "far", status, subresource="status")
    clock = Clock()
    clients = Clients(session, "node1", networks=[ipaddress.ip_network("10.244.0.0/16")], clock=clock)
    known, unknown, outside = (packed(text) for text in ("10.244.2.9", "10.244.2.10", "192.0.2.1"))
    for address in (known, unknown, outside):
        assert clients.get(address) == b""
    assert set(clients._looking) == {known, unknown}
    await asyncio.gather(*clients._looking.values())
    assert [clients.get(address) for address in (known, unknown, outside)] == [b"default", b"", b""]
    assert not clients._looking
    clock.now += 61
    await session.delete(POD, "default", "far", grace_seconds=0)
    clients.get(known)
    await asyncio.gather(*clients._looking.values())
    assert clients.get(known) == b""


# ── pod records ──────────────────────────────────────────────────────────────────────────────────────────────────────

POD_NAME = "10-244-1-1.default.pod.cluster.local."


@pytest.mark.parametrize(
    ("mode", "known", "rcode"),
    [
        ("disabled", True, dns.rcode.NXDOMAIN),
        ("insecure", False, dns.rcode.NOERROR),
        ("verified", False, dns.rcode.NXDOMAIN),
        ("verified", True, dns.rcode.NOERROR),
    ],
)
def test_pod_records_in_each_mode(mode: str, known: bool, rcode: dns.rcode.Rcode) -> None:
    """disabled: none; insecure: whatever address the name says; verified: if a pod of the namespace has it."""
    answers = new_zone(pod_mode=mode)
    if known:
        answers.set_pod("default", bytes([10, 244, 1, 1]), exists=True)
    reply = ask(answers, POD_NAME)
    assert reply.rcode() == rcode
    assert texts(reply) == (["A 10.244.1.1"] if rcode == dns.rcode.NOERROR else [])
    assert ask(answers, POD_NAME, "AAAA").rcode() == rcode
    if known:
        answers.set_pod("default", bytes([10, 244, 1, 1]), exists=False)
        assert ask(answers, POD_NAME).rcode() == dns.rcode.NXDOMAIN


async def test_verified_pods_come_and_go(session: Session) -> None:
    """A pod's name exists while the pod has the address."""
    answers = new_zone(pod_mode="verified")
    pods = VerifiedPods(session, answers)
    task = asyncio.create_task(pods.run())
    try:
        await session.create(POD, pod("one"))
        assert ask(answers, POD_NAME).rcode() == dns.rcode.NXDOMAIN
        status = {"status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.1"}], "podIP": "10.244.1.1"}}
        await session.patch(POD, "default", "one", status, subresource="status")
        async with asyncio.timeout(DEADLINE):
            await pods.pods.until(lambda: any(p.status.pod_ips for p in pods.pods.items.values()))
        assert texts(ask(answers, POD_NAME)) == ["A 10.244.1.1"]
        await session.delete(POD, "default", "one", grace_seconds=0)
        async with asyncio.timeout(DEADLINE):
            await pods.pods.until(lambda: not pods.pods.items)
        assert ask(answers, POD_NAME).rcode() == dns.rcode.NXDOMAIN
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
