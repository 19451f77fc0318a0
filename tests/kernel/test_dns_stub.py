"""The machine's own stub resolver (glibc) against our server, each in its network namespace."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from kubesvc.dns.config import SocketFactory, plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.server import Server
from kubesvc.kernel import netns
from support.dns_upstream import Upstream
from support.dns_zone import endpoint, endpoint_slice, put, service, small_cluster

DEADLINE = 60.0


@pytest.fixture
def namespaces() -> Iterator[tuple[Path, Path]]:
    """Two namespaces with loopback up: the node's, and the host's where the upstream lives."""
    made = [f"kst-dns-{os.getpid()}-{secrets.token_hex(3)}-{role}" for role in ("node", "host")]
    try:
        for name in made:
            netns.create_named(name)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield netns.named(made[0]), netns.named(made[1])
    finally:
        for name in made:
            netns.delete(netns.named(name))


def bound_in(path: Path) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on port 53 of a namespace's loopback."""
    udp = netns.socket_in(path, socket.AF_INET, socket.SOCK_DGRAM)
    tcp = netns.socket_in(path, socket.AF_INET, socket.SOCK_STREAM)
    for one in (udp, tcp):
        one.bind(("127.0.0.1", 53))
    tcp.listen()
    return udp, tcp


@asynccontextmanager
async def running(path: Path, factory: SocketFactory, *, try_seconds: float = 0.3) -> AsyncIterator[Resolver]:
    """Our server on port 53 in the namespace at `path`, its upstream 127.0.0.1 wherever `factory` makes sockets."""
    udp, tcp = bound_in(path)
    answers = small_cluster()
    many = [endpoint(f"10.244.1.{n}", f"pod-{n}") for n in range(1, 101)]
    put(answers, service("crowd", headless=True), endpoint_slice("crowd", *many))
    forwarder = Forwarder(("127.0.0.1",), factory, clock=asyncio.get_running_loop().time, try_seconds=try_seconds)
    resolver = Resolver(answers, forwarder)
    server = Server(answers, resolver, [udp], [tcp])
    await server.start()
    try:
        yield resolver
    finally:
        await server.stop()
        await forwarder.close()
        udp.close()
        tcp.close()


async def getent(path: Path, tmp_path: Path, database: str, name: str) -> list[str]:
    """The addresses that glibc finds in the namespace at `path`, with a pod's resolv.conf."""
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "nameserver 127.0.0.1\n"
        "search default.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5 timeout:30 attempts:1\n"
    )
    script = 'mount --bind "$1" "$(readlink -f /etc/resolv.conf)" && exec getent "$2" "$3"'
    command = ["nsenter", f"--net={path}", "unshare", "-m", "sh", "-c", script, "sh", str(conf), database, name]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    async with asyncio.timeout(DEADLINE):
        output, _ = await process.communicate()
    return sorted({line.split()[0] for line in output.decode().splitlines()})


@pytest.mark.parametrize(
    ("database", "name", "expected"),
    [
        pytest.param("ahosts", "web", ["10.96.0.20"], id="a Service of the pod's namespace"),
        pytest.param("ahosts", "kube-dns.kube-system", ["10.96.0.10"], id="of another namespace"),
        pytest.param("ahosts", "dual.default.svc", ["10.96.0.21", "fd00:96::21"], id="both families"),
        pytest.param("ahosts", "db", ["10.244.1.5", "10.244.2.6"], id="headless"),
        pytest.param("ahosts", "inside", ["10.96.0.20"], id="an alias in the zone"),
        pytest.param("ahosts", "gone", [], id="nobody"),
        pytest.param("hosts", "10.96.0.20", ["10.96.0.20"], id="an address"),
        pytest.param("ahosts", "crowd", [f"10.244.1.{n}" for n in range(1, 101)], id="too many for UDP"),
    ],
)
async def test_glibc_resolves(
    namespaces: tuple[Path, Path], tmp_path: Path, database: str, name: str, expected: list[str]
) -> None:
    """What a pod asks with short names and a search path, the way every program asks it."""
    async with running(namespaces[0], plain_socket):
        assert await getent(namespaces[0], tmp_path, database, name) == sorted(expected)


async def test_upstream_is_asked_from_where_the_factory_makes_sockets(namespaces: tuple[Path, Path]) -> None:
    """The node's namespace has no way to the upstream; sockets of the host's namespace do."""
    node, host = namespaces
    udp, tcp = bound_in(host)
    tcp.close()
    above = Upstream()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: above, sock=udp)
    query = dns.message.make_query("www.example.com", "A").to_wire()
    try:
        async with running(
            node, lambda family, kind: netns.socket_in(host, family, kind), try_seconds=DEADLINE
        ) as resolver:
            reply = await resolver.answer(query, tcp=False)
            assert reply is not None
            assert dns.message.from_wire(reply).answer
        async with running(node, lambda family, kind: netns.socket_in(node, family, kind)) as resolver:
            # Port 53 on the node's loopback is ourselves: nothing but SERVFAIL comes of it, and no storm.
            before = len(above.asked)
            reply = await resolver.answer(query, tcp=False)
            assert reply is not None
            assert dns.message.from_wire(reply).rcode() == dns.rcode.SERVFAIL
            assert len(above.asked) == before
    finally:
        transport.close()
