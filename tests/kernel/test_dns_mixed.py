"""A pod's two questions, for A and AAAA, that different servers answer: only one of them knows the client."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubesvc.dns import wire
from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.resolver import Resolver
from kubesvc.kernel import netns
from support.dns_upstream import upstream
from support.dns_zone import put, service, small_cluster
from support.resolvers import looked_up

KINDS = {wire.A: "A", wire.AAAA: "AAAA"}


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"kst-mixed-{os.getpid()}-{secrets.token_hex(3)}"
    path = netns.create_named(name)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        netns.delete(path)


@pytest.mark.parametrize("completed", ["A", "AAAA"])
async def test_glibc_finds_a_name_that_two_servers_answer_differently(
    namespace: str, tmp_path: Path, completed: str
) -> None:
    """A server is away: one question was completed, the other isn't. Neither ends the search without an address."""
    answers = small_cluster()
    answers.set_namespace("other", exists=True)
    put(answers, service("shop", "10.96.0.77", namespace="other"))
    put(answers, service("far", external="www.example.com", namespace="other"))
    loop = asyncio.get_running_loop()
    udp = netns.socket_in(netns.named(namespace), socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 53))
    udp.setblocking(False)
    seen: set[str] = set()
    async with upstream() as above:
        resolver = Resolver(answers, Forwarder((above.address,), plain_socket, clock=loop.time))

        async def answer(data: bytes, peer: object) -> None:
            kind = KINDS.get(int.from_bytes(data[data.index(b"\0", 12) + 1 :][:2], "big"), "")
            seen.add(kind)
            reply = await resolver.answer(data, tcp=False, namespace=b"default" if kind == completed else b"")
            await loop.sock_sendto(udp, reply or b"", peer)

        async def serve() -> None:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(answer(*await loop.sock_recvfrom(udp, 65535)))

        serving = asyncio.create_task(serve())
        try:
            assert await looked_up(namespace, tmp_path, "shop.other") == ["10.96.0.77"]
            assert await looked_up(namespace, tmp_path, "shop.other.svc") == ["10.96.0.77"]
            assert await looked_up(namespace, tmp_path, "far.other") == ["192.0.2.7"]
            assert await looked_up(namespace, tmp_path, "www.example.com") == ["192.0.2.7"]
            assert await looked_up(namespace, tmp_path, "gone.other") == []
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            udp.close()
    assert seen == {"A", "AAAA"}
