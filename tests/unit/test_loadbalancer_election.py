"""Which node answers for which address."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest

from kubesvc.api.balancing import Address
from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service, ServiceSpec, ServiceStatus
from kubesvc.api.discovery import Endpoint, EndpointConditions
from kubesvc.api.labels import EXCLUDE_FROM_LOAD_BALANCERS
from kubesvc.api.meta import Condition, ObjectMeta
from kubesvc.api.nodes import Node, NodeSpec, NodeStatus, Taint
from kubesvc.loadbalancer.announce import election
from kubesvc.loadbalancer.announce.adverts import L2Rule
from kubesvc.loadbalancer.announce.election import Member, Vip, addresses, elect, hosts
from kubesvc.loadbalancer.nodes import TO_BE_DELETED, is_eligible
from kubesvc.loadbalancer.providers.pools import Pool

NODES = ["node1", "node2", "node3"]
POOL = [Pool("default", ((IPv4Address("172.29.7.200"), IPv4Address("172.29.7.250")),))]
VIPS = [IPv4Address("172.29.7.1") + n for n in range(240)]


def claims(node: str, vips: list[Vip], eligible: list[str]) -> frozenset[Address]:
    """What `node` claims among these, where every pool is announced everywhere."""
    return election.claims(node, vips, [Member(name) for name in eligible], [L2Rule(frozenset({""}))])


def test_every_address_has_exactly_one_announcer() -> None:
    announced = [claims(node, [Vip(a) for a in VIPS], NODES) for node in NODES]
    assert sorted(a for claimed in announced for a in claimed) == VIPS


def test_addresses_spread_over_the_nodes() -> None:
    counts = Counter(elect(a, NODES) for a in VIPS)
    assert all(counts[node] > len(VIPS) / 3 * 0.7 for node in NODES), counts


def test_the_order_in_which_nodes_are_seen_does_not_matter() -> None:
    assert [elect(a, NODES) for a in VIPS] == [elect(a, reversed(NODES)) for a in VIPS]


def test_a_lost_node_moves_its_addresses_alone() -> None:
    before = {a: elect(a, NODES) for a in VIPS}
    after = {a: elect(a, ["node1", "node3"]) for a in VIPS}
    assert {a for a in VIPS if before[a] != after[a]} == {a for a in VIPS if before[a] == "node2"}


def test_nobody_announces_without_eligible_nodes() -> None:
    assert elect(VIPS[0], []) is None
    assert claims("node1", [Vip(VIPS[0])], []) == frozenset()


@pytest.mark.parametrize(
    ("host_nodes", "eligible", "announcer"),
    [
        ({"node2"}, NODES, "node2"),
        ({"node2"}, ["node1", "node3"], None),
        (set(), NODES, None),
    ],
    ids=["the-node-with-the-endpoint", "that-node-is-not-eligible", "no-endpoint"],
)
def test_policy_local_is_announced_where_an_endpoint_is(
    host_nodes: set[str], eligible: list[str], announcer: str | None
) -> None:
    vip = Vip(VIPS[0], frozenset(host_nodes))
    assert [n for n in NODES if claims(n, [vip], eligible)] == ([announcer] if announcer else [])


def endpoint(node: str | None, ready: bool | None, serving: bool | None = None, terminating: bool = False) -> Endpoint:
    conditions = EndpointConditions(ready=ready, serving=serving, terminating=terminating)
    return Endpoint(addresses=["10.244.0.2"], conditions=conditions, node_name=node)


@pytest.mark.parametrize(
    ("endpoints", "nodes"),
    [
        ([endpoint("node1", True), endpoint("node2", False, False)], {"node1"}),
        ([endpoint("node1", None)], {"node1"}),
        ([endpoint("node1", True), endpoint("node2", False, True, True)], {"node1"}),
        ([endpoint("node1", False, False), endpoint("node2", False, True, True)], {"node2"}),
        ([endpoint(None, True)], set()),
        ([], set()),
    ],
    ids=["ready", "nil-is-ready", "ready-before-terminating", "terminating-when-none-is-ready", "no-node", "none"],
)
def test_nodes_that_can_serve_policy_local(endpoints: list[Endpoint], nodes: set[str]) -> None:
    assert hosts(endpoints) == nodes


def service(ip: str, *, hostname: str = "", ip_mode: str | None = "VIP", service_type: str = "LoadBalancer") -> Service:
    ingress = LoadBalancerIngress(ip=ip, hostname=hostname, ip_mode=ip_mode)
    status = ServiceStatus(load_balancer=LoadBalancerStatus(ingress=[ingress]))
    return Service(spec=ServiceSpec(type=service_type), status=status)


@pytest.mark.parametrize(
    ("shown", "announced"),
    [
        (service("172.29.7.200"), ["172.29.7.200"]),
        (service("172.29.7.200", ip_mode=None), ["172.29.7.200"]),
        (service("172.29.7.200", ip_mode="Proxy"), []),
        (service("203.0.113.7"), []),
        (service("fd00::1"), []),
        (service("", hostname="lb.example.com"), []),
        (service("172.29.7.200", service_type="ClusterIP"), []),
    ],
    ids=["ours", "mode-unset", "proxy-mode", "not-of-our-pool", "ipv6", "hostname", "not-a-load-balancer"],
)
def test_addresses_that_are_announced(shown: Service, announced: list[str]) -> None:
    assert addresses(shown, POOL) == [(IPv4Address(a), "default") for a in announced]


def node(
    ready: str = "True", *, labels: dict[str, str] | None = None, taint: str = "", unschedulable: bool = False
) -> Node:
    return Node(
        metadata=ObjectMeta(name="node1", labels=labels or {}),
        spec=NodeSpec(taints=[Taint(key=taint, effect="NoSchedule")] if taint else [], unschedulable=unschedulable),
        status=NodeStatus(conditions=[Condition(type="Ready", status=ready)]),
    )


@pytest.mark.parametrize(
    ("seen", "eligible"),
    [
        (node(), True),
        (node("False"), False),
        (node("Unknown"), False),
        (Node(), False),
        (node(labels={EXCLUDE_FROM_LOAD_BALANCERS: ""}), False),
        (node(taint=TO_BE_DELETED), False),
        (node(taint="other"), True),
        (node(unschedulable=True), True),
    ],
    ids=["ready", "not-ready", "unknown", "no-condition", "excluded", "to-be-deleted", "other-taint", "cordoned"],
)
def test_nodes_that_may_take_traffic(seen: Node, eligible: bool) -> None:
    assert is_eligible(seen) is eligible
