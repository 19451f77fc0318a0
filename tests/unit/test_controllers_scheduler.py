"""Where pods go, and what is said when they fit nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.controllers.scheduler.plan import host_ports, plan
from kubesvc.controllers.scheduler.snapshot import Candidate, HostPort
from support.objects import node, pod

PORT = {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}
TAINT = {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}


def test_replicas_spread_then_nodes_even_out_then_names_decide() -> None:
    a, b, c = (node(name) for name in "abc")
    assert plan(pod("p"), [Candidate(b), Candidate(a)]).node == "a"
    assert plan(pod("p"), [Candidate(a, pods=1), Candidate(b)]).node == "b"
    assert plan(pod("p"), [Candidate(a, siblings=1, pods=1), Candidate(b, 0, 9), Candidate(c, 1, 1)]).node == "b"


@pytest.mark.parametrize(
    ("story", "one", "there", "fits"),
    [
        ("an ordinary node", pod("p"), node("n"), True),
        ("cordoned", pod("p"), node("n", unschedulable=True), False),
        ("not ready", pod("p"), node("n", ready=False), False),
        ("without the label", pod("p", nodeSelector={"disk": "ssd"}), node("n"), False),
        ("with the label", pod("p", nodeSelector={"disk": "ssd"}), node("n", {"disk": "ssd"}), True),
        ("tainted", pod("p"), node("n", **TAINT), False),
        (
            "tainted, tolerated by value",
            pod("p", tolerations=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
            node("n", **TAINT),
            True,
        ),
        (
            "tainted, another value tolerated",
            pod("p", tolerations=[{"key": "gpu", "value": "no"}]),
            node("n", **TAINT),
            False,
        ),
        ("tainted, everything tolerated", pod("p", tolerations=[{"operator": "Exists"}]), node("n", **TAINT), True),
        (
            "only preferred elsewhere",
            pod("p"),
            node("n", taints=[{"key": "k", "effect": "PreferNoSchedule"}]),
            True,
        ),
        (
            "not ready, tolerated",
            pod("p", tolerations=[{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]),
            node("n", ready=False),
            True,
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_which_nodes_fit(story: str, one: Pod, there: Node, fits: bool) -> None:
    assert bool(plan(one, [Candidate(there)]).node) is fits


@pytest.mark.parametrize(
    ("taken", "fits"),
    [
        (HostPort("TCP", 8080, ""), False),
        (HostPort("UDP", 8080, ""), True),
        (HostPort("TCP", 8081, ""), True),
        (HostPort("TCP", 8080, "10.0.0.1"), False),
    ],
)
def test_host_ports_are_taken_once(taken: HostPort, fits: bool) -> None:
    decided = plan(pod("p", containers=[PORT]), [Candidate(node("n"), host_ports=frozenset([taken]))])
    assert bool(decided.node) is fits


def test_two_addresses_share_a_host_port() -> None:
    def on(address: str) -> dict[str, Any]:
        return {"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": address}]}

    taken = host_ports(pod("q", containers=[on("10.0.0.1")]))
    there = Candidate(node("n"), host_ports=taken)
    assert plan(pod("p", containers=[on("10.0.0.2")]), [there]).node == "n"
    assert plan(pod("p", containers=[on("0.0.0.0")]), [there]).node == ""


def test_what_is_said_when_it_fits_nowhere() -> None:
    """Upstream's words, each reason with its count."""
    one = pod("p", nodeSelector={"disk": "ssd"})
    nodes = [Candidate(node("a")), Candidate(node("b")), Candidate(node("c", unschedulable=True))]
    assert plan(one, nodes).message == (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector."
    )
    assert plan(one, []).message == "no nodes available to schedule pods"
    assert plan(pod("p"), [Candidate(node("a", ready=False))]).message == (
        "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
    )
