"""A server whose network loses every fifth packet: `dig`, dnspython, glibc and musl still get every answer right."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import pytest

from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.server import Server
from kubesvc.kernel import netns
from support.dns_table import ROWS, SVC, cluster, lines
from support.resolvers import GETENT, looked_up, output

DEADLINE = 60.0
TRIES = 50  # a question and its answer both come through with 0.64; 50 tries fail once in 10**22
AT_ONCE = 8

LOSS = """
table inet loss {
  chain input {
    type filter hook input priority 0;
    meta l4proto udp numgen random mod 5 == 0 counter drop
    meta l4proto tcp numgen random mod 20 == 0 counter drop
  }
}
"""
MUSL = r"""
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int count, char **names) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  int error = getaddrinfo(names[1], 0, &hints, &found);
  for (; !error && found; found = found->ai_next) {
    char text[64];
    void *at = found->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr
                                           : (void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr;
    puts(inet_ntop(found->ai_family, at, text, sizeof text));
  }
  return error == EAI_NONAME ? 2 : error != 0;
}
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"kst-loss-{os.getpid()}-{secrets.token_hex(3)}"
    path = netns.create_named(name)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=LOSS, text=True, check=True)
        yield name
    finally:
        netns.delete(path)


@asynccontextmanager
async def running(namespace: str, clients: dict[bytes, bytes] | None = None) -> AsyncIterator[None]:
    """The contract's zone on port 53 of the namespace's loopback."""
    path = netns.named(namespace)
    udp = netns.socket_in(path, socket.AF_INET, socket.SOCK_DGRAM)
    tcp = netns.socket_in(path, socket.AF_INET, socket.SOCK_STREAM)
    for one in (udp, tcp):
        one.bind(("127.0.0.1", 53))
    tcp.listen()
    answers = cluster()
    forwarder = Forwarder((), plain_socket, clock=asyncio.get_running_loop().time)
    server = Server(answers, Resolver(answers, forwarder), [udp], [tcp], clients or {})
    await server.start()
    try:
        yield
    finally:
        await server.stop()
        await forwarder.close()
        udp.close()
        tcp.close()


def lost(namespace: str) -> int:
    command = ["ip", "netns", "exec", namespace, "nft", "list", "table", "inet", "loss"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sum(int(count) for count in re.findall(r"counter packets (\d+)", listed))


async def dig(namespace: str, name: str, kind: str) -> tuple[str, tuple[str, ...]]:
    """(rcode, lines of the answer section) as `dig` prints them."""
    options = [f"+tries={TRIES}", "+time=1", "+noall", "+comments", "+answer", "+nocookie"]
    _, text = await output("ip", "netns", "exec", namespace, "dig", "@127.0.0.1", *options, name, kind)
    status = re.search(r"status: (\w+)", text)
    records = [line.split(maxsplit=4) for line in text.splitlines() if line and not line.startswith(";")]
    return status[1] if status else text, tuple(sorted(f"{words[0]} {words[3]} {words[4]}" for words in records))


async def dnspython(namespace: str, name: str, kind: str, *, tcp: bool) -> tuple[str, tuple[str, ...]]:
    query = dns.message.make_query(name, kind)
    for _ in range(TRIES):
        try:
            with netns.entered(netns.named(namespace)):  # the socket is made before the first await
                asking = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
            reply = await asyncio.to_thread(_exchange, asking, query, tcp)
        except (OSError, dns.exception.Timeout):
            continue
        return dns.rcode.to_text(reply.rcode()), lines(reply, "answer")
    return "no reply", ()


def _exchange(asking: socket.socket, query: dns.message.Message, tcp: bool) -> dns.message.Message:
    wire = query.to_wire()
    with asking:
        asking.settimeout(3 if tcp else 0.2)
        asking.connect(("127.0.0.1", 53))
        if not tcp:
            asking.send(wire)
            return dns.message.from_wire(asking.recv(65535))
        asking.sendall(len(wire).to_bytes(2, "big") + wire)
        with asking.makefile("rb") as stream:
            return dns.message.from_wire(stream.read(int.from_bytes(stream.read(2), "big")))


@pytest.mark.parametrize("way", ["dig", "udp", "tcp"])
async def test_the_contract_holds_although_packets_are_lost(namespace: str, way: str) -> None:
    """Every row of the table, asked of the running server until an answer comes through: never a wrong one."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def ask(name: str, kind: str) -> tuple[str, tuple[str, ...]]:
        async with limit:
            if way == "dig":
                return await dig(namespace, name, kind)
            return await dnspython(namespace, name, kind, tcp=way == "tcp")

    async with running(namespace):
        found = await asyncio.gather(*(ask(row.name, row.type) for row in ROWS))
    assert [one for one in zip(ROWS, found, strict=True) if one[1] != (one[0].rcode, one[0].answer)] == []
    assert lost(namespace) > 0


@pytest.fixture(scope="module")
def musl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints what musl's getaddrinfo finds."""
    directory = tmp_path_factory.mktemp("musl")
    (directory / "lookup.c").write_text(MUSL)
    subprocess.run(["musl-gcc", "-static", "-o", "lookup", "lookup.c"], cwd=directory, check=True)
    return directory / "lookup"


@pytest.mark.parametrize("known", [True, False], ids=["search completed", "search walked"])
@pytest.mark.parametrize("resolver", ["glibc", "musl"])
async def test_resolvers_walk_their_search_path(
    namespace: str, musl: Path, tmp_path: Path, resolver: str, known: bool
) -> None:
    """Short, long and absent names with a pod's resolv.conf and ndots:5, whether or not the server knows the client."""
    program = [str(musl)] if resolver == "musl" else GETENT

    async def addresses(name: str, *, tries: int = 1) -> list[str]:
        """Again where packets were lost five times in a row, so that the resolver gave up."""
        for _ in range(tries):
            if found := await looked_up(namespace, tmp_path, name, program):
                return found
        return []

    expected = {
        "web": ["10.96.0.20"],
        "kube-dns.kube-system": ["10.96.0.10"],
        "dual.default.svc": ["10.96.0.21", "fd00:96::21"],
        "db-0.db": ["10.244.1.5"],
        f"web.{SVC[:-1]}": ["10.96.0.20"],
        f"web.{SVC}": ["10.96.0.20"],
        "inside": ["10.96.0.20"],
    }
    async with running(namespace, {bytes([127, 0, 0, 1]): b"default"} if known else None):
        there = [addresses(name, tries=20) for name in expected]
        found = await asyncio.gather(*there, addresses("gone"), addresses("db-7.db"))
    for (name, right), got in zip(expected.items(), found, strict=False):
        # glibc is content with one family when it is the other's answer that is lost again and again
        assert got == right or (resolver == "glibc" and got and set(got) < set(right)), name
    assert found[-2:] == [[], []]
