"""Packet flows: (source, destination, port, where) -> (output, masqueraded?), through the rules the kernel gets."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from kubesvc.kernel.nft.transaction import DeleteElements, Transaction
from kubesvc.proxy.backend import Ranges
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.fake import Connection, FakeBackend, Trace, Where
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import TABLE, TCP, UDP, pack, slot, tail
from kubesvc.proxy.maps import BACKENDS
from support.proxy import NODE, NODE_IP, RANGES, endpoint, service, slice_of

POD, HERE, THERE, OUTSIDE = "10.244.0.9", "10.244.0.5", "10.244.1.5", "192.0.2.1"
VIP, EXTERNAL = "172.29.7.200", "203.0.113.7"


@pytest.fixture(scope="module")
def backend() -> FakeBackend:
    """Services: web (everything, one endpoint there), self (one endpoint, here), empty (none), local (policy Local)."""
    frontends = Frontends(Locality(NODE), [pack(NODE_IP)])
    ports = [{"port": 80, "nodePort": 30080}]
    lb = service("web", "10.96.0.10", type="LoadBalancer", ports=ports, externalIPs=[EXTERNAL], status_ips=[VIP])
    frontends.set_service(lb.key, lb)
    frontends.set_slice(None, slice_of(THERE, owner="web"))
    dns = [{"port": 53, "protocol": "UDP"}]
    for name, address, ports_, spec in (
        ("self", "10.96.0.11", None, {}),
        (
            "empty",
            "10.96.0.12",
            [{"port": 80, "nodePort": 30081}],
            {"type": "NodePort", "externalIPs": ["203.0.113.8"]},
        ),
        ("local", "10.96.0.13", None, {"internalTrafficPolicy": "Local"}),
        ("dns", "10.96.0.14", dns, {}),
    ):
        made = service(name, address, ports=ports_, **spec)
        frontends.set_service(made.key, made)
    frontends.set_slice(None, slice_of(endpoint(HERE, node=NODE), owner="self"))
    frontends.set_slice(None, slice_of(THERE, owner="local"))
    udp = [{"name": "", "port": 1053, "protocol": "UDP"}]
    frontends.set_slice(None, slice_of(THERE, owner="dns", ports=udp))
    made = FakeBackend(RANGES, [NODE_IP])
    frontends.take()
    made.resync(frontends.everything())
    return made


W, N = Where.WIRE, Where.NODE
WEB = f"{THERE}:8080"


@pytest.mark.parametrize(
    ("source", "destination", "protocol", "port", "where", "output", "masqueraded"),
    [
        pytest.param(POD, "10.96.0.10", TCP, 80, W, WEB, False, id="pod to cluster IP"),
        pytest.param(OUTSIDE, "10.96.0.10", TCP, 80, W, WEB, True, id="off-cluster to cluster IP"),
        pytest.param(NODE_IP, "10.96.0.10", TCP, 80, N, WEB, True, id="node to cluster IP"),
        pytest.param(OUTSIDE, NODE_IP, TCP, 30080, W, WEB, True, id="node port from outside"),
        pytest.param(POD, NODE_IP, TCP, 30080, W, WEB, True, id="node port from a pod"),
        pytest.param(NODE_IP, NODE_IP, TCP, 30080, N, WEB, True, id="node port from the node itself"),
        pytest.param(OUTSIDE, VIP, TCP, 80, W, WEB, True, id="load balancer address"),
        pytest.param(POD, VIP, TCP, 80, W, WEB, True, id="load balancer address from a pod"),
        pytest.param(OUTSIDE, EXTERNAL, TCP, 80, W, WEB, True, id="external IP"),
        pytest.param(HERE, "10.96.0.11", TCP, 80, W, f"{HERE}:8080", True, id="hairpin"),
        pytest.param(POD, "10.96.0.11", TCP, 80, W, f"{HERE}:8080", False, id="its neighbour is no hairpin"),
        pytest.param(POD, "10.96.0.14", UDP, 53, W, f"{THERE}:1053", False, id="UDP"),
        pytest.param(POD, "10.96.0.14", TCP, 53, W, "reject", False, id="the other protocol"),
        pytest.param(POD, "10.96.0.12", TCP, 80, W, "reject", False, id="no endpoints"),
        pytest.param(NODE_IP, "10.96.0.12", TCP, 80, N, "reject", False, id="no endpoints, from the node"),
        pytest.param(OUTSIDE, NODE_IP, TCP, 30081, W, "reject", False, id="no endpoints, node port"),
        pytest.param(OUTSIDE, "203.0.113.8", TCP, 80, W, "reject", False, id="no endpoints, external IP"),
        pytest.param(POD, "10.96.0.13", TCP, 80, W, "drop", False, id="policy Local, none here"),
        pytest.param(POD, "10.96.0.10", TCP, 81, W, "reject", False, id="undefined port of a cluster IP"),
        pytest.param(POD, "10.96.9.9", TCP, 80, W, "drop", False, id="unallocated cluster IP"),
        pytest.param(NODE_IP, "10.96.9.9", TCP, 80, N, "drop", False, id="unallocated cluster IP, from the node"),
        pytest.param(POD, "10.244.1.77", TCP, 80, W, "10.244.1.77:80", False, id="pod to pod is left alone"),
        pytest.param(POD, "10.96.0.10", 1, 80, W, "reject", False, id="not a port protocol"),
        pytest.param(OUTSIDE, NODE_IP, TCP, 22, W, f"{NODE_IP}:22", False, id="the node's own ports are left alone"),
        pytest.param(OUTSIDE, VIP, TCP, 30080, W, f"{VIP}:30080", False, id="a node port is none on the VIP"),
    ],
)
def test_packet_flow(
    backend: FakeBackend,
    source: str,
    destination: str,
    protocol: int,
    port: int,
    where: Where,
    output: str,
    masqueraded: bool,
) -> None:
    """Each connection goes where the Service says, with the source address it should have."""
    found = backend.trace(Connection(source, destination, protocol, port, where))
    assert found == Trace(output, masqueraded), "\n".join(["matched:", *backend.packet.matched])
    if output not in ("drop", "reject"):
        assert (backend.packet.mark, backend.packet.priority) == (0, 0), "our notes stay on the packet"


def test_connections_reach_every_endpoint_and_no_other() -> None:
    """All slots are drawn, and each is an endpoint."""
    frontends = Frontends(Locality(NODE), [pack(NODE_IP)])
    web = service()
    frontends.set_service(web.key, web)
    frontends.set_slice(None, slice_of(*(f"10.244.0.{n}" for n in range(1, 8))))
    made = FakeBackend(RANGES, [NODE_IP])
    made.resync(frontends.take())
    assert made.outputs(Connection(POD, "10.96.0.10", TCP, 80)) == {f"10.244.0.{n}:8080" for n in range(1, 8)}


def test_a_packet_between_two_changes_still_finds_an_endpoint() -> None:
    """A class that promises more slots than there are leads to slot 0, by the second dnat."""
    frontends = Frontends(Locality(NODE), [])
    web = service()
    frontends.set_service(web.key, web)
    frontends.set_slice(None, slice_of("10.244.0.1", "10.244.0.2"))
    made = FakeBackend(RANGES, [NODE_IP])
    made.resync(frontends.take())
    removal = Transaction()
    removal.add(DeleteElements(TABLE, BACKENDS["4"], [pack("10.96.0.10") + tail(TCP, 80) + slot(1)]))
    made.nft.commit(removal)
    connection = Connection(POD, "10.96.0.10", TCP, 80)
    assert [made.trace(connection, draw=n).output for n in (0, 1)] == ["10.244.0.1:8080"] * 2


def test_ipv6_flows_like_ipv4() -> None:
    """The same rules with the other suffix."""
    ranges = Ranges((ip_network("fd00:96::/108"),), (ip_network("fd00:10:244::/56"),))
    frontends = Frontends(Locality(NODE), [])
    web = service(cluster_ip="fd00:96::10")
    frontends.set_service(web.key, web)
    frontends.set_slice(None, slice_of("fd00:10:244:1::5", family="IPv6"))
    made = FakeBackend(ranges, ["fd00:29::1"])
    made.resync(frontends.take())
    for source, destination, port, expected in (
        ("fd00:10:244::9", "fd00:96::10", 80, Trace("[fd00:10:244:1::5]:8080", False)),
        ("2001:db8::1", "fd00:96::10", 80, Trace("[fd00:10:244:1::5]:8080", True)),
        ("fd00:10:244::9", "fd00:96::10", 81, Trace("reject", False)),
        ("fd00:10:244::9", "fd00:96::11", 80, Trace("drop", False)),
        ("fd00:10:244::9", "fd00:97::10", 80, Trace("[fd00:97::10]:80", False)),
    ):
        assert made.trace(Connection(source, destination, TCP, port)) == expected, "\n".join(made.packet.matched)
