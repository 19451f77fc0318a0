"""UDP clients that go on sending from one port follow their Service: real datagrams, real connection tracking.

pods 10.244.0.1, 10.244.0.2, client pod 10.244.0.9 ══ node 172.29.7.11 ── outside 172.29.7.99
     fd00:10:244::1, ::2,               ::9             fd00:29::11            fd00:29::99
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from kubesvc.kernel.conntrack import Conntrack, Flow
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.layout import TCP, UDP, pack
from support import flows
from support.lists import Api
from support.net import DEADLINE, Lab, Namespace, ask
from support.proxied import proxied, until
from support.proxy import NODE, NODE_IP, service, slice_of

VIP, ONE, TWO = "10.96.0.10", "10.244.0.1", "10.244.0.2"
VIP_6, ONE_6, TWO_6, NODE_IP_6 = "fd00:96::10", "fd00:10:244::1", "fd00:10:244::2", "fd00:29::11"
LOAD_BALANCER, LOAD_BALANCER_6, EXTERNAL = "172.29.8.1", "fd00:29:8::1", "203.0.113.1"
PORTS = [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 8053, "nodePort": 30053}]
SLICE_PORTS = [{"name": "dns", "port": 8053, "protocol": "UDP"}]
DNS = service("dns", VIP, ports=PORTS, type="NodePort")
BOTH = service(
    "dns",
    VIP,
    ports=PORTS,
    type="LoadBalancer",
    clusterIPs=[VIP, VIP_6],
    externalIPs=[EXTERNAL],
    status_ips=[LOAD_BALANCER, LOAD_BALANCER_6],
)
CONFIG = ProxyConfig(
    NODE, (ip_address(NODE_IP), ip_address(NODE_IP_6)), flows.RANGES.service_cidrs, flows.RANGES.pod_cidrs
)
FLOWS = "conntrack_reconciler_deleted_entries_total"
PASSES = "conntrack_reconciler_sync_duration_seconds_count"


def endpoints(*addresses: str):  # type: ignore[no-untyped-def]
    return slice_of(*addresses, owner="dns", ports=SLICE_PORTS)


def both(four: str, six: str):  # type: ignore[no-untyped-def]
    return endpoints(four), slice_of(six, owner="dns", name="dns-6", ports=SLICE_PORTS, family="IPv6")


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
        node.ip("addr", "add", f"{NODE_IP_6}/64", "dev", "eth0", "nodad")
        outside.ip("addr", "add", "fd00:29::99/64", "dev", "eth0", "nodad")
        for to, gateway in (("172.29.8.0/24", NODE_IP), ("203.0.113.0/24", NODE_IP), ("fd00:29:8::/64", NODE_IP_6)):
            outside.ip("route", "add", to, "via", gateway)
        for gateway in ("172.29.7.99", "fd00:29::99"):  # without a route, nothing is refused, but lost
            node.ip("route", "add", "default", "via", gateway)
        for name, address, six in (
            ("one", ONE, ONE_6),
            ("two", TWO, TWO_6),
            ("client", "10.244.0.9", "fd00:10:244::9"),
        ):
            pod = lab.pod(node, name, address)
            lab.second_address(node, pod, name, six)
            if name == "client":
                yield World(node, pod, outside)
                break
            lab.serve(pod, 8053, name, udp=True)
            lab.serve(pod, 8053, name, udp=True, family=socket.AF_INET6)


class Client:
    """One UDP socket, so one flow, for as long as the test lasts."""

    def __init__(self, where: Namespace, address: str, port: int) -> None:
        self._socket = where.socket(socket.SOCK_DGRAM, socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._socket.connect((address, port))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, patience: float = DEADLINE) -> str:
        self._socket.settimeout(patience)
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


@pytest.mark.parametrize(
    ("source", "address", "port"),
    [
        pytest.param("outside", LOAD_BALANCER, 53, id="load balancer"),
        pytest.param("outside", EXTERNAL, 53, id="external IP"),
        pytest.param("client", VIP_6, 53, id="cluster IP, IPv6"),
        pytest.param("outside", NODE_IP_6, 30053, id="node port, IPv6"),
        pytest.param("outside", LOAD_BALANCER_6, 53, id="load balancer, IPv6"),
    ],
)
async def test_every_address_of_both_families_follows(world: World, source: str, address: str, port: int) -> None:
    """The endpoints are replaced, then the Service is emptied and deleted, under one client of one port."""
    one, two = both(ONE, ONE_6), both(TWO, TWO_6)
    api = Api(services=[BOTH], endpointslices=list(one))
    async with proxied(world.node, api, CONFIG) as here:
        with Client(getattr(world, source), address, port) as client:
            assert client.ask() == "one"
            api.tell("endpointslices", "MODIFIED", *two)
            await until("the old flow ended", lambda: here.metric(FLOWS) == 1)
            assert client.ask() == "two"
            api.tell("endpointslices", "DELETED", *two)
            await until("it was ended again", lambda: here.metric(FLOWS) == 2)
            with pytest.raises(ConnectionRefusedError):
                client.ask()
            api.tell("endpointslices", "ADDED", *one)
            await until("answered", lambda: _answers(client) == "one")
            ended = here.metric(FLOWS)
            api.tell("services", "DELETED", BOTH)
            await until("of a deleted Service, too", lambda: here.metric(FLOWS) > ended)


async def test_a_slow_look_at_the_flows_holds_up_no_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes its time over a dump; a hundred changes are in force before it ends."""
    dumping, go_on = threading.Event(), threading.Event()
    whole = Conntrack.flows

    def slow(self: Conntrack, protocol: int) -> list[Flow]:
        dumping.set()
        assert go_on.wait(DEADLINE)
        return whole(self, protocol)

    monkeypatch.setattr(Conntrack, "flows", slow)
    api = Api(services=[DNS], endpointslices=[endpoints(ONE)])
    async with proxied(world.node, api) as here:
        await until("a dump", dumping.is_set)
        for last in range(100):
            api.tell("endpointslices", "MODIFIED", endpoints(f"10.244.7.{last}"))
        await until("in force", lambda: "10.244.7.99 . 8053" in world.node.run("nft", "list", "ruleset"))
        assert here.metric(PASSES) == 0
        go_on.set()
        await until("the look ended", lambda: here.metric(PASSES) > 0)


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
    """Soon over: of refusals that come quickly the kernel tells the first six, then one a second."""
    try:
        return client.ask(2)
    except OSError:
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
                client.ask(0.5)


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


def test_the_kernel_picks_one_protocol_and_deleting_twice_is_fine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flows of both protocols are there; only UDP's are listed, and a flow that is gone is no error."""
    tracking = world.node.call(Conntrack)
    assert isinstance(tracking, Conntrack)
    world.node.run("nft", "add table ip t; add chain ip t c { type filter hook forward priority 0; }")
    world.node.run("nft", "add rule ip t c ct state new accept")
    ask(world.client, ONE, 8053, udp=True)
    with pytest.raises(ConnectionRefusedError):
        ask(world.client, ONE, 80)
    dumps: list[int] = []  # flows in each
    dump = tracking._netlink.dump

    def counted(kind: int, body: bytes) -> list[bytes]:
        bodies = list(dump(kind, body))
        dumps.append(len(bodies))
        return bodies

    monkeypatch.setattr(tracking._netlink, "dump", counted)
    found = tracking.flows(UDP)
    assert dumps == [1, 0]  # one a family, and nothing but UDP in them
    assert [(flow.destination, flow.port, flow.answerer, flow.translated) for flow in found] == [
        (pack(ONE), 8053, pack(ONE), False)
    ]
    assert len(tracking.flows(TCP)) <= 1
    assert (tracking.delete(found), tracking.delete(found), tracking.flows(UDP)) == (1, 0, [])
    tracking.close()
