"""UDP clients that go on sending from one port follow their Service: real datagrams, real connection tracking.

pods 10.244.0.1, 10.244.0.2, client pod 10.244.0.9 ══ node 172.29.7.11 ── outside 172.29.7.99
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kubesvc.kernel.conntrack import Conntrack
from kubesvc.proxy.layout import TCP, UDP, pack
from support.lists import Api
from support.net import Lab, Namespace, ask
from support.proxied import proxied, until
from support.proxy import NODE_IP, service, slice_of

VIP, ONE, TWO = "10.96.0.10", "10.244.0.1", "10.244.0.2"
PORTS = [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 8053, "nodePort": 30053}]
SLICE_PORTS = [{"name": "dns", "port": 8053, "protocol": "UDP"}]
DNS = service("dns", VIP, ports=PORTS, type="NodePort")
FLOWS = "conntrack_reconciler_deleted_entries_total"
PASSES = "conntrack_reconciler_sync_duration_seconds_count"


def endpoints(*addresses: str):  # type: ignore[no-untyped-def]
    return slice_of(*addresses, owner="dns", ports=SLICE_PORTS)


@dataclass
class World:
    node: Namespace
    client: Namespace
    outside: Namespace

    def flows(self) -> int:
        tracking = self.node.call(Conntrack)
        assert isinstance(tracking, Conntrack)
        try:
            return len(tracking.flows(UDP))
        finally:
            tracking.close()


@pytest.fixture
def world() -> Iterator[World]:
    with Lab("conntrack") as lab:
        node, outside = lab.namespace("node"), lab.namespace("outside")
        lab.link(node, "eth0", outside, "eth0")
        node.ip("addr", "add", f"{NODE_IP}/24", "dev", "eth0")
        outside.ip("addr", "add", "172.29.7.99/24", "dev", "eth0")
        for name, address in (("one", ONE), ("two", TWO)):
            lab.serve(lab.pod(node, name, address), 8053, name, udp=True)
        yield World(node, lab.pod(node, "client", "10.244.0.9"), outside)


class Client:
    """One UDP socket, so one flow, for as long as the test lasts."""

    def __init__(self, where: Namespace, address: str, port: int) -> None:
        self._socket = where.socket(socket.SOCK_DGRAM)
        self._socket.settimeout(1.0)
        self._socket.connect((address, port))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self) -> str:
        self._socket.send(b"?")
        return self._socket.recv(64).decode().split()[0]


@pytest.mark.parametrize(("source", "address", "port"), [("client", VIP, 53), ("outside", NODE_IP, 30053)])
async def test_the_next_datagram_goes_to_the_new_endpoint(world: World, source: str, address: str, port: int) -> None:
    """The endpoint is replaced under a client that keeps its port: cluster IP and node port."""
    api = Api(services=[DNS], endpointslices=[endpoints(ONE)])
    async with proxied(world.node, api) as here:
        with Client(getattr(world, source), address, port) as client:
            assert [client.ask() for _ in range(3)] == ["one"] * 3
            api.tell("endpointslices", "MODIFIED", endpoints(TWO))
            await until("the old flow ended", lambda: here.metric(FLOWS) == 1)
            assert [client.ask() for _ in range(3)] == ["two"] * 3


async def test_an_emptied_service_ends_its_flows_and_a_filled_one_answers(world: World) -> None:
    """With no endpoint left the client is refused instead of talking to a pod that is gone; later it is answered."""
    api = Api(services=[DNS], endpointslices=[endpoints(ONE)])
    async with proxied(world.node, api) as here:
        with Client(world.client, VIP, 53) as client:
            assert client.ask() == "one"
            api.tell("endpointslices", "MODIFIED", endpoints())
            await until("the flow ended", lambda: here.metric(FLOWS) == 1)
            with pytest.raises(ConnectionRefusedError):
                client.ask()
            api.tell("endpointslices", "MODIFIED", endpoints(TWO))
            await until("answered", lambda: _answers(client) == "two")


def _answers(client: Client) -> str:
    try:
        return client.ask()
    except ConnectionRefusedError:
        return ""


@pytest.mark.parametrize(("source", "address", "port"), [("client", VIP, 53), ("outside", NODE_IP, 30053)])
async def test_a_deleted_service_ends_its_flows(world: World, source: str, address: str, port: int) -> None:
    """Nobody reaches a pod through a Service that no longer exists."""
    api = Api(services=[DNS], endpointslices=[endpoints(ONE)])
    async with proxied(world.node, api) as here:
        with Client(getattr(world, source), address, port) as client:
            assert client.ask() == "one"
            api.tell("services", "DELETED", DNS)
            await until("the flow ended", lambda: here.metric(FLOWS) == 1)
            with pytest.raises((TimeoutError, ConnectionRefusedError)):
                client.ask()


async def test_flows_of_a_service_deleted_while_no_proxy_ran_are_ended_by_the_next(world: World) -> None:
    """The proxy restarts and finds flows of a cluster IP and of a node port that no Service has."""
    with Client(world.client, VIP, 53) as inside, Client(world.outside, NODE_IP, 30053) as outside:
        async with proxied(world.node, Api(services=[DNS], endpointslices=[endpoints(ONE)])):
            assert (inside.ask(), outside.ask()) == ("one", "one")
        async with proxied(world.node, Api()) as here:
            await until("both flows ended", lambda: here.metric(FLOWS) == 2)


async def test_a_flow_made_before_the_node_port_was_one_is_not_lost(world: World) -> None:
    """A client that was already sending when the Service came is answered at its next datagram."""
    api = Api()
    async with proxied(world.node, api) as here:
        with Client(world.outside, NODE_IP, 30053) as client:
            with pytest.raises(ConnectionRefusedError):
                client.ask()
            assert world.flows() == 1
            api.tell("services", "ADDED", DNS)
            api.tell("endpointslices", "ADDED", endpoints(ONE))
            await until("the flow ended", lambda: here.metric(FLOWS) >= 1)
            await until("answered", lambda: _answers(client) == "one")


async def test_flows_that_are_right_or_not_ours_are_left_alone(world: World) -> None:
    """A live endpoint keeps its flows when another comes; pod to pod and TCP are never touched."""
    api = Api(services=[DNS], endpointslices=[endpoints(ONE)])
    async with proxied(world.node, api) as here:
        with Client(world.client, VIP, 53) as client, Client(world.client, TWO, 8053) as direct:
            assert (client.ask(), direct.ask()) == ("one", "two")
            before, passes = world.flows(), here.metric(PASSES)
            api.tell("endpointslices", "MODIFIED", endpoints(ONE, TWO))
            await until("a pass", lambda: here.metric(PASSES) > passes)
            assert (here.metric(FLOWS), world.flows()) == (0, before)
            assert [client.ask() for _ in range(5)] == ["one"] * 5


def test_the_kernel_picks_one_protocol_and_deleting_twice_is_fine(world: World) -> None:
    """Flows of both protocols are there; only UDP's are listed, and a flow that is gone is no error."""
    tracking = world.node.call(Conntrack)
    assert isinstance(tracking, Conntrack)
    world.node.run("nft", "add table ip t; add chain ip t c { type filter hook forward priority 0; }")
    world.node.run("nft", "add rule ip t c ct state new accept")
    ask(world.client, ONE, 8053, udp=True)
    with pytest.raises(ConnectionRefusedError):
        ask(world.client, ONE, 80)
    found = tracking.flows(UDP)
    assert [(flow.destination, flow.port, flow.answerer, flow.translated) for flow in found] == [
        (pack(ONE), 8053, pack(ONE), False)
    ]
    assert len(tracking.flows(TCP)) <= 1
    assert (tracking.delete(found), tracking.delete(found), tracking.flows(UDP)) == (1, 0, [])
    tracking.close()
