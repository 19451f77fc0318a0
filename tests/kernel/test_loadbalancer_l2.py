"""Announcers as processes on one segment with a client: traffic, both families, through every take-over."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from kubesvc.api.registry import L2_ADVERTISEMENT, NODE
from kubesvc.loadbalancer.announce.election import elect
from support.box import eventually
from support.net import ask
from support.segment import Network, network

VIP, VIP6 = "10.7.0.1", "fd00:7::1"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    """The router is the client here: it is on the segment, and has the pool's networks on it."""
    with network("l2", tmp_path) as made:
        made.router.ip("route", "add", "10.7.0.0/28", "dev", "br0")
        made.router.ip("route", "add", "fd00:7::/124", "dev", "br0")
        yield made


def holders(net: Network) -> set[str]:
    return {net.answers(net.router, VIP), net.answers(net.router, VIP6)}


@pytest.mark.parametrize("address", [VIP, VIP6])
def test_another_takes_over_from_the_dead(net: Network, address: str) -> None:
    """Killed, nothing of it can say goodbye; ended in order, the take-over is at once."""
    announcers = {name: net.announce(name) for name in net.nodes}
    net.service("web", address)
    first = elect(ip_address(address), net.nodes)
    assert first is not None
    second = next(name for name in net.nodes if name != first)
    net.until_answered(net.router, address, first)  # whichever of them was there first
    net.nodes[first].ip("link", "set", "lo", "down")  # with its announcer dead, its kernel mustn't answer by itself
    announcers[first].end(signal.SIGKILL)
    net.until_answered(net.router, address, second)  # in less than a second: bench/loadbalancer measures it
    net.nodes[first].ip("link", "set", "lo", "up")


def test_a_drain_and_an_end_in_order_lose_nothing(net: Network) -> None:
    """Both families move when the node is cordoned, come back after, and move when the announcer ends."""
    announcers = {name: net.announce(name) for name in net.nodes}
    net.service("web", VIP, VIP6)
    eventually(lambda: "" not in holders(net), 60, "both answered")
    for name, other in (("node1", "node2"), ("node2", "node1")):
        net.patch(NODE, name, {"spec": {"unschedulable": True}})
        eventually(lambda other=other: holders(net) == {other}, 60, f"{other} has both")
        net.patch(NODE, name, {"spec": {"unschedulable": None}})
    announcers["node1"].end()
    assert ask(net.router, VIP, 80)[0]
    eventually(lambda: holders(net) == {"node2"}, 60, "node2 has both")


def test_policy_local_and_selectors(net: Network) -> None:
    """Only nodes with a ready endpoint, that an L2Advertisement names, on interfaces it names."""
    for name in net.nodes:
        net.announce(name)
    net.endpoint_on("web", "node2")
    net.service("web", VIP, VIP6, policy="Local")
    eventually(lambda: holders(net) == {"node2"}, 60, "where the endpoint is")
    net.endpoint_on("web", "node1")
    eventually(lambda: holders(net) == {"node1"}, 60, "follows it")
    net.service("free", "10.7.0.2")
    net.patch(NODE, "node1", {"metadata": {"labels": {"rack": "a"}}})
    net.create(L2_ADVERTISEMENT, "rack-a", {"nodeSelectors": [{"matchLabels": {"rack": "a"}}], "interfaces": ["eth0"]})
    eventually(lambda: net.answers(net.router, "10.7.0.2") == "node1", 60, "the node that is named")
    net.router.ip("neigh", "flush", "dev", "br0")
    net.patch(L2_ADVERTISEMENT, "rack-a", {"spec": {"interfaces": ["eth9"]}})

    def unanswered() -> bool:
        net.router.ip("neigh", "flush", "dev", "br0")
        return net.answers(net.router, "10.7.0.2") == ""

    eventually(unanswered, 60, "no interface of that name")


def test_a_node_that_can_not_serve_announces_nothing(net: Network) -> None:
    """Its health is asked for; when it fails, another takes over, and gives back when it passes."""
    url = "http://127.0.0.1:8000/"
    serve = ["ip", "netns", "exec", net.nodes["node1"].name, sys.executable, "-m", "http.server", "8000"]
    for healthy in (True, False):
        running = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=net.directory)
        try:
            if healthy:
                net.announce("node1", "--health-url", url)
                net.service("web", VIP)
            net.until_answered(net.router, VIP, "node1")
            net.announce("node2") if healthy else None
            net.patch(NODE, "node2", {"spec": {"unschedulable": True}})  # node1 has it while it may
            net.until_answered(net.router, VIP, "node1")
        finally:
            running.kill()
            running.wait()
        net.until_answered(net.router, VIP, "node2")
