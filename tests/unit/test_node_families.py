"""Addresses of both families on a node: who has which, where they are reached, host ports, environment."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from kubesvc.api.meta import ObjectMeta
from kubesvc.api.nodes import Node, NodeAddress, NodeSpec, NodeStatus
from kubesvc.api.pods import Container, ContainerPort, Pod, PodSpec
from kubesvc.node import environment, hostports, routes
from kubesvc.node.ipam import AddressPools, Exhausted

V4, V6 = ip_network("10.244.1.0/29"), ip_network("fd00:10:244:1::/64")


def texts(addresses: tuple[IPv4Address | IPv6Address, ...]) -> list[str]:
    return list(map(str, addresses))


def test_a_pod_gets_one_address_of_each_family_or_none() -> None:
    """Five fit into the smaller network; the sixth takes nothing of the larger one."""
    pools = AddressPools((V4, V6))
    assert texts(pools.allocate("a")) == ["10.244.1.2", "fd00:10:244:1::2"]
    assert pools.allocate("a") == pools.allocate("a")
    for uid in "bcde":
        pools.allocate(uid)
    with pytest.raises(Exhausted, match=r"10\.244\.1\.0/29"):
        pools.allocate("f")
    pools.release("b")
    assert texts(pools.allocate("g")) == ["10.244.1.3", "fd00:10:244:1::7"]


def test_addresses_of_before_are_given_back() -> None:
    """Whichever order they are remembered in; each family by itself."""
    pools = AddressPools((V4, V6))
    before = [ip_address("fd00:10:244:1::5"), ip_address("10.244.1.4")]
    pools.claim("a", before)
    assert texts(pools.allocate("b", before)) == ["10.244.1.2", "fd00:10:244:1::2"]
    assert texts(pools.allocate("a")) == ["10.244.1.4", "fd00:10:244:1::5"]
    pools.release("a")
    assert texts(pools.allocate("c", before[:1])) == ["10.244.1.3", "fd00:10:244:1::5"]


def test_each_pod_network_is_reached_by_the_nodes_first_address_of_its_family() -> None:
    addresses = ["172.29.0.3", "fd09::3", "172.29.0.33", "fd09::33"]
    status = NodeStatus(addresses=[NodeAddress(type="InternalIP", address=a) for a in addresses])
    cidrs = ["10.244.2.0/24", "fd00:10:244:2::/64"]
    other = Node(metadata=ObjectMeta(name="node2"), spec=NodeSpec(pod_cidrs=cidrs), status=status)
    wanted = {ip_network(cidrs[0]): ip_address("172.29.0.3"), ip_network(cidrs[1]): ip_address("fd09::3")}
    assert routes.plan([other], "node1") == wanted


@pytest.mark.parametrize(
    ("host_ip", "maps"),
    [
        ("", {"any-4", "any-6", "itself-4", "itself-6"}),
        ("0.0.0.0", {"any-4", "itself-4"}),
        ("::", {"any-6", "itself-6"}),
        ("172.29.0.2", {"addressed-4", "itself-4"}),
        ("fd09::2", {"addressed-6", "itself-6"}),
    ],
)
def test_a_host_port_is_of_the_families_of_its_address(host_ip: str, maps: set[str]) -> None:
    port = ContainerPort(container_port=80, host_port=8080, host_ip=host_ip)
    pod = Pod(metadata=ObjectMeta(name="p"), spec=PodSpec(containers=[Container(name="c", ports=[port])]))
    found = hostports.elements(pod, [ip_address("10.244.1.2"), ip_address("fd00::2")])
    assert {name for name, part in found.items() if part} == maps
    assert not any(hostports.elements(pod, []).values())


def test_fields_name_the_primary_address_and_all() -> None:
    pod = Pod(metadata=ObjectMeta(name="p"))
    found = [
        environment.field_value(f"status.{name}", pod, ["10.244.1.2", "fd00::2"], ["172.29.0.2", "fd09::2"])
        for name in ("podIP", "podIPs", "hostIP", "hostIPs")
    ]
    assert found == ["10.244.1.2", "10.244.1.2,fd00::2", "172.29.0.2", "172.29.0.2,fd09::2"]
