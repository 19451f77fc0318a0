"""What becomes of a silent node and of what runs on it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubesvc.api.labels import NOT_READY, UNREACHABLE
from kubesvc.api.nodes import Node, Taint
from kubesvc.api.pods import Pod
from kubesvc.controllers.nodelifecycle.plan import (
    banned,
    banning,
    closed,
    evictions,
    silenced,
    stay,
    taint_patch,
    taints,
    to_mark,
)
from support.objects import CREATED, endpoint_slice, make, pod

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def turned(status: str, **spec: Any) -> Node:
    ready = {"type": "Ready", "status": status, "lastTransitionTime": CREATED}
    return make(Node, "n1", {"namespace": ""}, spec=spec, status={"conditions": [ready]})


def test_a_silent_nodes_conditions_turn_unknown_with_upstreams_reasons() -> None:
    """What the agent had said stopped being posted; what it never said never was."""
    patch = silenced(turned("True"), NOW)
    assert patch is not None
    found = {c["type"]: (c["status"], c["reason"], c["message"]) for c in patch["status"]["conditions"]}
    never = ("Unknown", "NodeStatusNeverUpdated", "Kubelet never posted node status.")
    assert found == {
        "Ready": ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."),
        "MemoryPressure": never,
        "DiskPressure": never,
        "PIDPressure": never,
    }


def test_a_node_that_is_unknown_already_is_left_alone() -> None:
    kinds = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
    known = make(Node, "n1", {}, status={"conditions": [{"type": kind, "status": "Unknown"} for kind in kinds]})
    assert silenced(known, NOW) is None


def test_taints_follow_the_ready_condition() -> None:
    """Unreachable, back, not ready by its own word; taints of others stay."""
    mine = {"key": "disk", "effect": "NoSchedule", "value": "hdd"}
    both = [("disk", "NoSchedule"), (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
    silent = taints(turned("Unknown", taints=[mine]))
    assert [(t.key, t.effect) for t in silent or []] == both
    trees = taint_patch(turned("Unknown"), silent or [])["spec"]["taints"]
    assert trees[0] == mine
    assert taints(turned("Unknown", taints=trees)) is None
    assert taints(turned("True", taints=trees)) == [Taint("disk", "NoSchedule", "hdd")]
    assert [t.key for t in taints(turned("False", taints=trees)) or []] == ["disk", NOT_READY, NOT_READY]
    assert taints(turned("True")) is None
    assert taints(make(Node, "new", {})) is None, "one that never said anything is only new"


@pytest.mark.parametrize(
    ("story", "tolerations", "expected"),
    [
        ("says nothing", [], 300.0),
        ("a minute", [{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 60}], 60.0),
        ("for ever", [{"operator": "Exists"}], None),
        ("another taint", [{"key": "disk", "operator": "Exists"}], 300.0),
        ("another effect", [{"operator": "Exists", "effect": "NoSchedule"}], 300.0),
        ("by value", [{"key": UNREACHABLE, "value": "", "effect": "NoExecute", "tolerationSeconds": 5}], 5.0),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_how_long_a_pod_stays_on_an_unreachable_node(story: str, tolerations: Any, expected: float | None) -> None:
    assert stay(pod("a", tolerations=tolerations), UNREACHABLE) == expected


def test_pods_whose_time_is_up_go_and_the_next_is_waited_for() -> None:
    def tolerating(name: str, seconds: int, **more: Any) -> Pod:
        return pod(name, tolerations=[{"operator": "Exists", "tolerationSeconds": seconds}], **more)

    pods = [tolerating("soon", 10), tolerating("later", 70), tolerating("going", 10, going=True)]
    due, wait = evictions(turned("Unknown"), pods, NOW + timedelta(seconds=30))
    assert ([p.name for p in due], wait) == (["soon"], 40.0)
    assert evictions(turned("True"), pods, NOW + timedelta(days=1)) == ([], None)


def test_pods_that_do_not_tolerate_a_taint_go_at_once_and_others_in_their_time() -> None:
    """A pod made after the taint has its whole time."""
    gpu, spot = Taint("gpu", "NoExecute", "yes"), Taint("spot", "NoExecute")
    own = [{"key": UNREACHABLE, "effect": "NoExecute"}, {"key": "soft", "effect": "NoSchedule"}]
    node = turned("True", taints=[{"key": "gpu", "effect": "NoExecute", "value": "yes"}, *own])
    assert banning(node) == [gpu]
    tolerant = {"key": "gpu", "value": "yes", "effect": "NoExecute"}
    pods = [
        pod("plain"),
        pod("other", tolerations=[tolerant | {"value": "no"}]),
        pod("forever", tolerations=[tolerant]),
        pod("all", tolerations=[{"operator": "Exists"}]),
        pod("minute", tolerations=[tolerant | {"tolerationSeconds": 60}]),
    ]
    seen = NOW + timedelta(seconds=10)
    due, wait = banned(pods, {gpu: seen}, seen + timedelta(seconds=20))
    assert ([p.name for p in due], wait) == (["plain", "other"], 40.0)
    late = make(Pod, "late", {"creationTimestamp": "2026-01-01T00:00:25Z"}, spec={"tolerations": [
        tolerant | {"tolerationSeconds": 60}]})  # fmt: skip
    assert banned([late], {gpu: seen}, seen + timedelta(seconds=20)) == ([], 55.0)
    assert [p.name for p in banned(pods, {gpu: seen, spot: seen}, seen)[0]] == ["plain", "other", "forever", "minute"]
    assert banned(pods, {}, NOW) == ([], None)


def test_only_ready_pods_are_marked() -> None:
    assert [p.name for p in to_mark([pod("a"), pod("b", ready=False)])] == ["a"]


def test_a_slices_endpoints_of_a_lost_node_are_closed() -> None:
    ends = [{"addresses": [f"192.0.2.{n}"], "nodeName": f"n{n}", "conditions": {"ready": True}} for n in (1, 2)]
    found = endpoint_slice("kube-dns-n1", {}, endpoints=ends)
    patch = closed(found, "n1")
    assert patch is not None
    assert [e["conditions"]["ready"] for e in patch["endpoints"]] == [False, True]
    assert closed(endpoint_slice("x", {}, endpoints=ends), "n3") is None
