"""Nodes' DNS servers look after each other."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.meta import JSON, ObjectMeta
from kubesvc.api.nodes import Node
from kubesvc.api.registry import ENDPOINT_SLICE, SERVICE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.dns import main, wire
from kubesvc.dns.config import DnsConfig
from kubesvc.dns.kube_dns import wanted
from kubesvc.dns.neighbour import Watch, asking, neighbours
from kubesvc.dns.world import slim_slice
from support.apiserver import local_session
from support.dns_serving import DEADLINE, SVC, serving
from support.dns_upstream import bound_pair
from support.dns_zone import texts

ZONE = wire.encode_name("cluster.local")


@pytest.mark.parametrize(
    ("own", "serving", "expected"),
    [
        ("node1", {"node1": True, "node2": True, "node3": True}, ["node2"]),
        ("node3", {"node1": True, "node2": True, "node3": True}, ["node1"]),
        ("node1", {"node1": True, "node2": False, "node3": True}, ["node2", "node3"]),
        ("node1", {"node1": True}, []),
        ("node9", {"node1": True, "node2": True}, ["node1"]),
    ],
    ids=["next", "round", "behind one that is out", "alone", "not announced itself"],
)
def test_whom_a_node_looks_after(own: str, serving: dict[str, bool], expected: list[str]) -> None:
    """Each server has a watcher, also when the watcher's own neighbour is out of service."""
    assert neighbours(own, serving) == expected


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as one:
        yield one


class Servers:
    """Servers by address: which answer, and how often each was asked."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.asked: Counter[str] = Counter()

    async def probe(self, address: str, port: int) -> bool:
        self.asked[address] += 1
        return address not in self.dead


@asynccontextmanager
async def watching(session: Session, servers: Servers) -> AsyncIterator[Informer[EndpointSlice]]:
    """node1 looks after the others, quickly."""
    slices = Informer(session, ENDPOINT_SLICE, EndpointSlice, project=slim_slice)
    slices.index("service", lambda s: [(s.namespace, s.service_name)])
    watch = Watch(session, slices, node="node1", probe=servers.probe, probe_seconds=0.01)
    tasks = [asyncio.create_task(slices.run()), asyncio.create_task(watch.run())]
    try:
        async with asyncio.timeout(DEADLINE):
            yield slices
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def slice_of(node: str, address: str) -> JSON:
    return wanted(Node(metadata=ObjectMeta(name=node, uid=f"uid-{node}")), address, 10053)


async def announce(session: Session, *nodes: int) -> None:
    for number in nodes:
        await session.create(ENDPOINT_SLICE, slice_of(f"node{number}", f"172.29.7.{number}"))


def ready(slices: Informer[EndpointSlice], node: str) -> bool:
    found = slices.get("kube-system", f"kube-dns-{node}")
    return found is not None and bool(found.endpoints)


async def until(holds: Callable[[], bool]) -> None:
    """Turn the event loop until `holds`; the caller sets the deadline."""
    while not holds():  # noqa: ASYNC110 (a counter has no event)
        await asyncio.sleep(0)


async def test_server_that_does_not_answer_is_taken_out(session: Session) -> None:
    """Its endpoint becomes unready, for the data plane to pass it over; then the one behind it is looked after."""
    servers = Servers()
    servers.dead.add("172.29.7.2")
    await announce(session, 1, 2, 3)
    async with watching(session, servers) as slices:
        await slices.until(lambda: ready(slices, "node3"))
        await slices.until(lambda: not ready(slices, "node2"))
        await until(lambda: servers.asked["172.29.7.3"] > 3)
        assert ready(slices, "node3")
        assert servers.asked["172.29.7.1"] == 0
        found = await session.get(ENDPOINT_SLICE, "kube-system", "kube-dns-node2")
        assert found["endpoints"][0]["conditions"]["ready"] is False
        assert found["endpoints"][0]["addresses"] == ["172.29.7.2"]


async def test_the_last_server_is_never_taken_out(session: Session) -> None:
    """Better a server that may answer than none."""
    servers = Servers()
    servers.dead |= {"172.29.7.2", "172.29.7.3"}
    await announce(session, 2, 3)
    async with watching(session, servers) as slices:
        await slices.until(lambda: ready(slices, "node3"))
        await slices.until(lambda: not ready(slices, "node2"))
        await until(lambda: servers.asked["172.29.7.3"] > 20)
        assert ready(slices, "node3")


async def test_owner_and_watcher_that_disagree_do_not_quarrel(session: Session) -> None:
    """Each time its owner puts it back, a server is allowed twice as many misses: writes become rare."""
    servers = Servers()
    servers.dead.add("172.29.7.2")
    await announce(session, 1, 2)
    async with watching(session, servers) as slices:
        await slices.until(lambda: ready(slices, "node2"))
        for misses in (2, 2 + 4, 2 + 4 + 8):  # those after a write that isn't seen yet count for the next one
            await slices.until(lambda: not ready(slices, "node2"))
            assert servers.asked["172.29.7.2"] >= misses
            endpoints = slice_of("node2", "172.29.7.2")["endpoints"]
            await session.patch(ENDPOINT_SLICE, "kube-system", "kube-dns-node2", {"endpoints": endpoints})
            await slices.until(lambda: ready(slices, "node2"))


async def test_what_counts_as_an_answer() -> None:
    """NOERROR from the caches does; SERVFAIL before they have synced, and silence, don't."""
    probe = asking(ZONE, DEADLINE)
    async with serving() as one:
        assert await probe("127.0.0.1", one.port)
        one.answers.synced = False
        assert not await probe("127.0.0.1", one.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hung:
        hung.bind(("127.0.0.1", 0))
        assert not await asking(ZONE, 0.2)("127.0.0.1", hung.getsockname()[1])
    assert not await probe("127.0.0.1", one.port)


async def test_questions_wait_for_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts doesn't read its socket before it can answer: no SERVFAIL for what was asked meanwhile."""
    monkeypatch.setattr(main, "HOLD_SECONDS", DEADLINE)
    async with local_session() as session:
        made = await session.create(
            SERVICE, {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}
        )
        udp, tcp = bound_pair()
        port = udp.getsockname()[1]
        query = dns.message.make_query("web." + SVC, "A")
        asked = asyncio.create_task(dns.asyncquery.udp(query, "127.0.0.1", port=port, timeout=DEADLINE))
        await asyncio.sleep(0)
        config = DnsConfig("node1", "172.29.7.2", port, (udp,), (tcp,), drain_seconds=0)
        task = asyncio.create_task(main.run(session, config))
        try:
            reply = await asked
            assert (reply.rcode(), texts(reply)) == (dns.rcode.NOERROR, [f"A {made['spec']['clusterIP']}"])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            udp.close()
            tcp.close()
