"""The story of a DaemonSet: one pod on each node that it fits, replaced one by one, or doubled up first."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.apps import DaemonSet
from kubesvc.api.meta import parse_time
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.controllers.daemonset.eligibility import pod_of
from kubesvc.controllers.daemonset.plan import HASH, Plan, plan
from support.objects import make, pod

NOW = parse_time("2026-01-01T01:00:00Z")


def node(name: str, *taints: tuple[str, str], ready: bool = True, **spec: Any) -> Node:
    conditions = [{"type": "Ready", "status": str(ready)}]
    found = [{"key": key, "effect": effect} for key, effect in taints]
    labels = {"labels": {"name": name}}
    return make(Node, name, labels, spec={"taints": found, **spec}, status={"conditions": conditions})


def agent(strategy: dict[str, Any] | None = None, **spec: Any) -> DaemonSet:
    rolling = {"type": "RollingUpdate", "rollingUpdate": strategy or {}}
    return make(DaemonSet, "agent", spec={"template": {"spec": spec}, "updateStrategy": rolling})


def on(name: str, revision: str = "new", called: str = "", **more: Any) -> Pod:
    return pod(called or f"agent-{name}-{revision}", node=name, labels={HASH: revision}, **more)


def decide(ds: DaemonSet, pods: list[Pod], nodes: list[Node]) -> Plan:
    return plan(ds, pods, nodes, pod_of(ds), "new", NOW)


@pytest.mark.parametrize(
    ("there", "spec", "starts", "stays"),
    [
        pytest.param(node("n1"), {}, True, True, id="a plain node"),
        pytest.param(node("n1", unschedulable=True), {}, True, True, id="cordoned"),
        pytest.param(node("n1", ready=False), {}, False, True, id="not ready"),
        pytest.param(node("n1", ("gpu", "NoSchedule")), {}, False, True, id="tainted"),
        pytest.param(node("n1", ("gpu", "NoExecute")), {}, False, False, id="driven out"),
        pytest.param(
            node("n1", ("gpu", "NoExecute")), {"tolerations": [{"operator": "Exists"}]}, True, True, id="tolerated"
        ),
        pytest.param(node("n1"), {"nodeSelector": {"name": "n2"}}, False, False, id="another's label"),
    ],
)
def test_where_it_belongs(there: Node, spec: dict[str, Any], starts: bool, stays: bool) -> None:
    ds = agent(**spec)
    assert decide(ds, [], [there]).create == (["n1"] if starts else [])
    assert decide(ds, [on("n1")], [there]).delete == ([] if stays else [on("n1")])


NODES = [node("n1"), node("n2"), node("n3")]
SURGE = {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize(
    ("strategy", "pods", "create", "delete"),
    [
        pytest.param({}, [], ["n1", "n2", "n3"], [], id="none yet"),
        pytest.param({}, [on(n, "old") for n in ("n1", "n2", "n3")], [], ["agent-n1-old"], id="one at a time"),
        pytest.param({}, [on("n1"), on("n2", ready=False), on("n3", "old")], [], [], id="the next waits"),
        pytest.param(
            {}, [on("n1"), on("n2", "old", ready=False), on("n3", "old")], [], ["agent-n2-old"], id="unready ones first"
        ),
        pytest.param({}, [on("n1"), on("n2", "old", going=True), on("n3")], [], [], id="one going is waited for"),
        pytest.param(
            {"maxUnavailable": "50%"},
            [on(n, "old") for n in ("n1", "n2", "n3")],
            [],
            ["agent-n1-old", "agent-n2-old"],
            id="half of them, rounded up",
        ),
        pytest.param(SURGE, [on(n, "old") for n in ("n1", "n2", "n3")], ["n1"], [], id="surge: the new one first"),
        pytest.param(
            SURGE, [on("n1", "old"), on("n1", ready=False), on("n2", "old"), on("n3", "old")], [], [], id="which starts"
        ),
        pytest.param(
            SURGE,
            [on("n1", "old"), on("n1"), on("n2"), on("n3")],
            [],
            ["agent-n1-old"],
            id="and the old one goes",
        ),
        pytest.param(
            {}, [on("n1"), on("n1", called="twin"), on("n2"), on("n3")], [], ["twin"], id="two of a kind: the younger"
        ),
    ],
)
def test_a_rollout(strategy: dict[str, Any], pods: list[Pod], create: list[str], delete: list[str]) -> None:
    decided = decide(agent(strategy), pods, NODES)
    assert (decided.create, [p.name for p in decided.delete]) == (create, delete)


def test_counts() -> None:
    pods = [on("n1"), on("n2", "old", ready=False), on("n9"), on("n4")]
    status = decide(agent(), pods, [*NODES, node("n4", ("gpu", "NoSchedule"))]).status
    assert (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled) == (3, 2, 1)
    assert (status.number_ready, status.number_available, status.number_unavailable) == (1, 1, 2)
    assert status.updated_number_scheduled == 1


def test_a_node_is_up_to_date_once_its_old_pod_is_gone() -> None:
    """Else `kubectl rollout status` would call a surge done while its last pod isn't ready yet."""
    pods = [on("n1"), on("n2"), on("n3", "old"), on("n3", ready=False)]
    status = decide(agent(SURGE), pods, NODES).status
    assert (status.updated_number_scheduled, status.number_available) == (2, 3)
    assert decide(agent(SURGE), [on("n1"), on("n2"), on("n3")], NODES).status.updated_number_scheduled == 3


def test_a_pod_that_ended_is_replaced_when_it_is_gone() -> None:
    decided = decide(agent(), [on("n1", phase="Failed"), on("n2"), on("n3")], NODES)
    assert ([p.name for p in decided.finished], decided.create) == (["agent-n1-new"], [])
