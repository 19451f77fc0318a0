"""Host ports of real pods: which address, which protocol, who has one, and what an agent finds that starts again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_interface
from typing import Any

import aiohttp
import pytest

from kubesvc.kernel.links import Links
from kubesvc.kernel.nft.connection import Connection
from kubesvc.node.hostports import TABLE
from support.node import ADDRESS, NodeBed, is_ready, node_bed
from support.watching import DEADLINE

SERVER = ["/usr/bin/python3", "-S", "-m", "http.server", "8000"]
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9000))
while True:
    data, who = s.recvfrom(100)
    s.sendto(socket.gethostname().encode(), who)
"""
SECOND = "172.29.99.3"


@pytest.fixture
async def bed() -> AsyncIterator[NodeBed]:
    async with node_bed() as made:
        with Links() as links:
            links.add_address("lo", ip_interface(f"{SECOND}/32"))
        await made.start_agent()
        yield made


def on(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"ports": list(ports), "readinessProbe": {"tcpSocket": {"port": 8000}}}


async def get(url: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/etc/hostname") as answer:
        return (await answer.text()).strip()


def tables() -> bool:
    connection = Connection()
    try:
        return connection.comment(TABLE) is not None
    finally:
        connection.close()


async def test_a_host_port_leads_to_its_pod_until_it_goes(bed: NodeBed) -> None:
    """From the node itself and, by the way of the node, from the pod itself."""
    assert not tables()
    await bed.create("web", SERVER, container=on({"containerPort": 8000, "hostPort": 8080}))
    await bed.running("web")
    assert await get(f"http://{ADDRESS}:8080") == "web"
    assert await get(f"http://{SECOND}:8080") == "web"
    fetch = f"import urllib.request as u; print(u.urlopen('http://{ADDRESS}:8080/etc/hostname').read().decode())"
    assert (await bed.execute("web", ["/usr/bin/python3", "-S", "-c", fetch]))[1].split() == [b"web"]
    await bed.delete("web", grace_seconds=1)
    await bed.until_gone("web")
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(f"http://{ADDRESS}:8080")


async def test_addresses_and_protocols_of_one_port_are_told_apart(bed: NodeBed) -> None:
    port = {"containerPort": 8000, "hostPort": 80}
    await bed.create("one", SERVER, container=on(port | {"hostIP": str(ADDRESS)}))
    await bed.create("two", SERVER, container=on(port | {"hostIP": SECOND}))
    udp = {"ports": [{"containerPort": 9000, "hostPort": 80, "protocol": "UDP"}]}
    await bed.create("three", ["/usr/bin/python3", "-S", "-c", ECHO], container=udp)
    for name in ("one", "two", "three"):
        await bed.running(name)
    assert await get(f"http://{ADDRESS}:80") == "one"
    assert await get(f"http://{SECOND}:80") == "two"
    assert await asyncio.wait_for(asyncio.to_thread(ask, str(ADDRESS), 80), DEADLINE) == "three"


def ask(address: str, port: int) -> str:
    """Over UDP, again while nobody answers: a server that has started may not listen yet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        while True:
            client.sendto(b"?", (address, port))
            try:
                return client.recv(100).decode()
            except (TimeoutError, ConnectionRefusedError):
                continue


async def test_a_second_pod_with_the_port_waits_until_it_is_free(bed: NodeBed) -> None:
    """Only a pod that names its node itself comes so far; the scheduler would not have placed it."""
    port = on({"containerPort": 8000, "hostPort": 8080})
    await bed.create("first", SERVER, container=port)
    await bed.running("first")
    await bed.create("second", SERVER, container=port)
    await bed.until_event("second", "FailedCreatePodSandBox", "host port 8080 is in use by another pod of this node")
    await bed.delete("first", grace_seconds=1)
    await bed.running("second")
    assert await get(f"http://{ADDRESS}:8080") == "second"


async def test_host_ports_outlive_a_killed_agent() -> None:
    """They answer while none is there; the next one takes them over, and gives up those of pods that went meanwhile."""
    async with node_bed() as bed:
        await bed.start_process()
        for name, port in (("stays", 8080), ("goes", 8081)):
            await bed.create(name, SERVER, container=on({"containerPort": 8000, "hostPort": port}))
            await bed.until(name, is_ready)
        await bed.kill_process()
        assert await get(f"http://{ADDRESS}:8080") == "stays"
        await bed.delete("goes", grace_seconds=0)
        await bed.start_process()
        await bed.create("next", SERVER, container=on({"containerPort": 8000, "hostPort": 8081}))
        await bed.until("next", is_ready)
        assert await get(f"http://{ADDRESS}:8080") == "stays"
        assert await get(f"http://{ADDRESS}:8081") == "next"
