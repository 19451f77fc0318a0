"""Affinity, anti-affinity, spread and resources: tables of who fits where, and what is said."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.controllers.scheduler.plan import plan
from kubesvc.controllers.scheduler.resources import requested, requests
from kubesvc.controllers.scheduler.snapshot import Candidate
from support.objects import make, node, pod

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


def nodes(*names: str) -> list[Node]:
    """a1, a2 and b1 are in the zones a, a and b."""
    return [node(name, {HOST: name, ZONE: name[0], "rank": name[1:]}) for name in names]


def there(**running: list[Pod]) -> list[Candidate]:
    """Nodes by name, with the pods on each."""
    return [Candidate(one, pods=len(running[one.name]), there=running[one.name]) for one in nodes(*running)]


def term(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


# ── node affinity ──


@pytest.mark.parametrize(
    ("terms", "fits"),
    [
        ([{"matchExpressions": [term("rank", "In", "1", "2")]}], ["a1", "a2", "b1"]),
        ([{"matchExpressions": [term(ZONE, "In", "a"), term("rank", "NotIn", "1")]}], ["a2"]),
        (
            [{"matchExpressions": [term(ZONE, "In", "b")]}, {"matchExpressions": [term("rank", "In", "2")]}],
            ["a2", "b1"],
        ),
        ([{"matchExpressions": [term("rank", "Gt", "1")]}], ["a2"]),
        ([{"matchExpressions": [term("rank", "Lt", "2")]}], ["a1", "b1"]),
        ([{"matchExpressions": [term("gpu", "DoesNotExist")]}], ["a1", "a2", "b1"]),
        ([{"matchExpressions": [term("gpu", "Exists")]}], []),
        ([{"matchFields": [term("metadata.name", "In", "a2")]}], ["a2"]),
        ([{}], []),
    ],
    ids=["in", "all of a term", "one of the terms", "greater", "less", "absent", "present", "by name", "an empty term"],
)
def test_required_node_affinity(terms: list[Any], fits: list[str]) -> None:
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    one = pod("p", affinity=affinity)
    assert [n.name for n in nodes("a1", "a2", "b1") if plan(one, [Candidate(n)]).node] == fits


def test_preferred_node_affinity_is_weighed_before_evenness() -> None:
    def wish(weight: int, *expressions: dict[str, Any]) -> dict[str, Any]:
        return {"weight": weight, "preference": {"matchExpressions": list(expressions)}}

    wishes = [wish(1, term("rank", "In", "1")), wish(5, term(ZONE, "In", "b"))]
    one = pod("p", affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": wishes}})
    crowded = [Candidate(n, pods=9 if n.name == "b1" else 0) for n in nodes("a1", "a2", "b1")]
    assert plan(one, crowded).node == "b1"
    assert plan(one, crowded[:2]).node == "a1"


# ── affinity between pods ──


def near(key: str, app: str = "cache", *, anti: bool = False, weight: int = 0, **more: Any) -> dict[str, Any]:
    found = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}
    which = "preferred" if weight else "required"
    listed = [{"weight": weight, "podAffinityTerm": found}] if weight else [found]
    return {"podAntiAffinity" if anti else "podAffinity": {f"{which}DuringSchedulingIgnoredDuringExecution": listed}}


CACHE = pod("c", labels={"app": "cache"})
OTHER = pod("o", labels={"app": "other"})
ELSEWHERE = pod("e", labels={"app": "cache"}, meta={"namespace": "prod"})


@pytest.mark.parametrize(
    ("affinity", "running", "fits"),
    [
        (near(HOST), {"a1": [CACHE], "a2": [OTHER], "b1": []}, ["a1"]),
        (near(ZONE), {"a1": [CACHE], "a2": [], "b1": []}, ["a1", "a2"]),
        (near(ZONE), {"a1": [OTHER], "a2": [], "b1": []}, []),
        (near("rack"), {"a1": [CACHE]}, []),
        (near(HOST), {"a1": [ELSEWHERE]}, []),
        (near(HOST, namespaces=["prod"]), {"a1": [ELSEWHERE], "b1": []}, ["a1"]),
        (near(HOST, namespaceSelector={"matchLabels": {"tier": "p"}}), {"a1": [ELSEWHERE], "b1": [CACHE]}, ["a1"]),
        (near(HOST, namespaceSelector={}), {"a1": [ELSEWHERE], "b1": [CACHE]}, ["a1", "b1"]),
        (near(HOST, anti=True), {"a1": [CACHE], "a2": [OTHER], "b1": []}, ["a2", "b1"]),
        (near(ZONE, anti=True), {"a1": [CACHE], "a2": [], "b1": []}, ["b1"]),
        (near("rack", anti=True), {"a1": [CACHE]}, ["a1"]),
        (near(ZONE, "web"), {"a1": [], "b1": []}, ["a1", "b1"]),
        (near(ZONE, "web"), {"a1": [pod("w")], "b1": []}, ["a1"]),
        (near(HOST, "web", anti=True), {"a1": [pod("w")], "b1": []}, ["b1"]),
    ],
    ids=[
        "near, same node", "near, same zone", "nobody to be near", "no such topology", "another namespace's", "named",
        "by the namespace's labels", "every namespace", "away, same node", "away, same zone", "away, no such topology",
        "the first of its group", "the second of its group", "replicas apart",
    ],
)  # fmt: skip
def test_required_affinity_between_pods(affinity: Any, running: dict[str, list[Pod]], fits: list[str]) -> None:
    one, candidates = pod("p", affinity=affinity), there(**running)
    spaces = {"default": {}, "prod": {"tier": "p"}}
    found = []
    for wanted in running:
        only = [c for c in candidates if c.node.name == wanted]
        rest = [Candidate(c.node, there=c.there, host_ports=c.host_ports) for c in candidates if c not in only]
        closed = [Candidate(_cordoned(c.node), there=c.there) for c in rest]
        found += [wanted] if plan(one, [*only, *closed], spaces).node == wanted else []
    assert found == fits


def _cordoned(one: Node) -> Node:
    return node(one.name, one.metadata.labels, unschedulable=True)


def test_who_runs_with_an_anti_affinity_keeps_newcomers_away() -> None:
    hermit = pod("h", labels={"app": "hermit"}, affinity=near(ZONE, "web", anti=True))
    candidates = there(a1=[hermit], a2=[], b1=[])
    assert plan(pod("p"), candidates).node == "b1"
    assert plan(pod("p"), candidates[:2]).message == (
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    )


@pytest.mark.parametrize(
    ("affinity", "message"),
    [
        (near(HOST), "0/1 nodes are available: 1 node(s) didn't match pod affinity rules."),
        (near(HOST, "other", anti=True), "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."),
    ],
)
def test_what_is_said_of_affinity(affinity: Any, message: str) -> None:
    assert plan(pod("p", affinity=affinity), there(a1=[OTHER])).message == message


def test_preferred_affinity_draws_and_repels() -> None:
    candidates = there(a1=[], b1=[CACHE])
    assert plan(pod("p", affinity=near(HOST, weight=10)), candidates).node == "b1"
    assert plan(pod("p", affinity=near(HOST, weight=10, anti=True)), [candidates[1], there(c1=[OTHER])[0]]).node == "c1"


def test_match_label_keys_mean_the_pods_of_the_same_template() -> None:
    """A rolling update may put the new version beside the old one."""
    old = pod("w", labels={"app": "web", "hash": "1"})
    apart = near(HOST, "web", anti=True, matchLabelKeys=["hash"])
    assert plan(pod("p", labels={"app": "web", "hash": "2"}, affinity=apart), there(a1=[old])).node == "a1"
    assert plan(pod("p", labels={"app": "web", "hash": "1"}, affinity=apart), there(a1=[old])).node == ""


# ── spread ──


def even(key: str, skew: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "maxSkew": skew,
        "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
        **more,
    }


WEB = pod("w")


@pytest.mark.parametrize(
    ("constraints", "running", "chosen"),
    [
        ([even(ZONE)], {"a1": [WEB], "a2": [], "b1": []}, "b1"),
        ([even(ZONE, 2)], {"a1": [WEB], "a2": [], "b1": [WEB, WEB]}, "a2"),
        ([even(HOST), even(ZONE)], {"a1": [WEB], "a2": [], "b1": [WEB]}, "a2"),
        ([even(ZONE, minDomains=3)], {"a1": [WEB], "b1": [WEB]}, ""),
        ([even(ZONE, minDomains=2)], {"a1": [WEB], "b1": [WEB]}, "a1"),
        ([even("rack")], {"a1": []}, ""),
        ([even(ZONE, whenUnsatisfiable="ScheduleAnyway")], {"a1": [WEB], "b1": [WEB, WEB]}, "a1"),
        ([even(ZONE)], {"a1": [OTHER, OTHER], "b1": [WEB]}, "a1"),
    ],
    ids=[
        "the emptier zone", "within the skew", "two at once", "too few domains", "domains enough", "no such label",
        "only a wish", "others don't count",
    ],
)  # fmt: skip
def test_topology_spread(constraints: list[Any], running: dict[str, list[Pod]], chosen: str) -> None:
    assert plan(pod("p", topologySpreadConstraints=constraints), there(**running)).node == chosen


def test_what_is_said_of_spread() -> None:
    skewed = there(a1=[WEB], b1=[])
    closed = [skewed[0], Candidate(_cordoned(skewed[1].node))]
    one = pod("p", topologySpreadConstraints=[even(ZONE)])
    assert plan(one, closed).message == (
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable."
    )
    assert plan(pod("p", topologySpreadConstraints=[even("rack")]), skewed).message == (
        "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints (missing required label)."
    )


def test_nodes_that_the_pod_cannot_use_are_no_domains() -> None:
    """Unless the constraint ignores that: then the empty zone holds the others back."""
    here = {"nodeSelector": {ZONE: "a"}}
    candidates = there(a1=[WEB], a2=[WEB], b1=[])
    assert plan(pod("p", topologySpreadConstraints=[even(ZONE)], **here), candidates).node == "a1"
    all_of_them = even(ZONE, nodeAffinityPolicy="Ignore")
    assert plan(pod("p", topologySpreadConstraints=[all_of_them], **here), candidates).node == ""


# ── resources ──


def asks(cpu: str = "", memory: str = "", **more: Any) -> dict[str, Any]:
    wanted = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    return {"name": f"c{cpu}{memory}", "resources": {"requests": wanted}, **more}


def of_size(cpu: str, memory: str, pods: str = "110") -> Node:
    allocatable = {"cpu": cpu, "memory": memory, "pods": pods}
    conditions = [{"type": "Ready", "status": "True"}]
    return make(Node, "n", {"namespace": ""}, status={"allocatable": allocatable, "conditions": conditions})


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([asks("1", "512Mi"), asks("500m")], ""),
        ([asks("1600m")], "0/1 nodes are available: 1 Insufficient cpu."),
        ([asks("3", "9Gi")], "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."),
        (
            [{"name": "g", "resources": {"requests": {"example.com/gpu": 1}}}],
            "0/1 nodes are available: 1 Insufficient example.com/gpu.",
        ),
    ],
    ids=["room", "cpu", "both", "what no node has"],
)
def test_resource_requests(wanted: list[Any], message: str) -> None:
    """Of two CPUs, half a one is requested by who runs there."""
    running = requested([pod("r", containers=[asks("250m")]), pod("s", containers=[asks("250m")])])
    there_ = Candidate(of_size("2", "1Gi"), 2, 2, requested=running)
    assert plan(pod("p", containers=wanted), [there_]).message == message


def test_a_full_node_takes_no_more_pods() -> None:
    assert plan(pod("p"), [Candidate(of_size("2", "1Gi", "3"), pods=3)]).message == (
        "0/1 nodes are available: 1 Too many pods."
    )


def test_an_init_container_counts_where_it_needs_more_than_the_rest() -> None:
    """A sidecar is there beside both."""
    sidecar = asks("100m", restartPolicy="Always")
    small = pod("p", initContainers=[sidecar, asks("200m")], containers=[asks("300m")])
    assert {name: float(n) for name, n in requests(small).items()} == {"cpu": 0.4}
    large = pod("p", initContainers=[sidecar, asks("2")], containers=[asks("300m")])
    assert {name: float(n) for name, n in requests(large).items()} == {"cpu": 2.1}


def test_taints_that_would_rather_not_are_a_last_resort() -> None:
    shy = node("a", taints=[{"key": "k", "effect": "PreferNoSchedule"}])
    assert plan(pod("p"), [Candidate(shy), Candidate(node("b"), pods=50)]).node == "b"
    assert plan(pod("p"), [Candidate(shy)]).node == "a"
