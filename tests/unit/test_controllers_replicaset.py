"""The story of a ReplicaSet's pods: created, ranked for deletion, adopted, released, counted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kubesvc.api.meta import parse_time
from kubesvc.api.pods import Pod
from kubesvc.api.registry import REPLICA_SET
from kubesvc.api.selectors import from_label_selector
from kubesvc.controllers.ownership import adoption, claim, reference_to, without_owners
from kubesvc.controllers.replicaset.plan import BURST, failure_condition, plan, rank, status_patch
from kubesvc.controllers.templates import pod_tree
from support.objects import CREATED, owned_by, pod, replica_set

NOW = parse_time("2026-01-01T01:00:00Z")
OWNED = owned_by("ReplicaSet", "rs")


@pytest.mark.parametrize(
    ("wanted", "pods", "create", "delete"),
    [
        (3, [], 3, 0),
        (2, [pod("a"), pod("b")], 0, 0),
        (2, [pod("a"), pod("b", going=True)], 1, 0),
        (2, [pod("a"), pod("b", phase="Failed")], 1, 0),
        (1, [pod("a"), pod("b"), pod("c")], 0, 2),
        (BURST + 1, [], BURST, 0),
    ],
    ids=["none yet", "enough", "one is going", "one failed", "too many", "a burst at most"],
)
def test_how_many(wanted: int, pods: list[Pod], create: int, delete: int) -> None:
    decided = plan(replica_set("rs", wanted), pods, pods, NOW)
    assert (decided.create, len(decided.delete)) == (create, delete)


def test_a_replica_set_being_deleted_creates_and_deletes_nothing() -> None:
    rs = replica_set("rs", 3, meta={"deletionTimestamp": CREATED})
    assert plan(rs, [], [], NOW).create == 0


def test_who_goes_first() -> None:
    """From "nobody would miss it" to "longest in service"."""
    order = [
        pod("unassigned", node="", phase="Pending", ready=False),
        pod("pending", node="n3", phase="Pending", ready=False),
        pod("not-ready", node="n3", ready=False),
        pod("cheap", node="n3", meta={"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}),
        pod("doubled-up-young", node="n1", since="2026-01-01T00:30:00Z"),
        pod("doubled-up-old", node="n1", since="2026-01-01T00:10:00Z"),
        pod("ready-late", node="n2", since="2026-01-01T00:30:00Z"),
        pod("younger", node="n4", meta={"creationTimestamp": "2026-01-01T00:00:09Z"}),
        pod("oldest", node="n5"),
    ]
    assert [p.name for p in rank(order[::-1], order)][:3] == ["unassigned", "pending", "not-ready"]
    alone = [p for p in order if p.spec.node_name not in ("", "n3")]
    assert [p.name for p in rank(alone[::-1], alone)] == [p.name for p in alone]
    assert rank(order[2:4][::-1], [])[0].name == "not-ready"
    assert rank([order[8], order[3]], [])[0].name == "cheap"


def test_status_counts() -> None:
    rs = replica_set("rs", 3, meta={"generation": 7})
    pods = [pod("a"), pod("b", ready=False), pod("c", labels={"app": "other"}), pod("d", going=True)]
    status = plan(rs, pods, pods, NOW).status
    assert (status.replicas, status.ready_replicas, status.available_replicas) == (3, 2, 2)
    assert (status.fully_labeled_replicas, status.observed_generation) == (2, 7)


def test_min_ready_seconds_are_waited_for() -> None:
    rs = replica_set("rs", 1)
    rs = type(rs)(metadata=rs.metadata, spec=type(rs.spec)(min_ready_seconds=30, template=rs.spec.template))
    pods = [pod("a", since=CREATED)]
    early = parse_time(CREATED) + timedelta(seconds=10)
    decided = plan(rs, pods, pods, early)
    assert (decided.status.ready_replicas, decided.status.available_replicas, decided.again) == (1, 0, 20.0)
    decided = plan(rs, pods, pods, early + timedelta(seconds=20))
    assert (decided.status.available_replicas, decided.again) == (1, None)


def test_a_failure_keeps_the_time_since_which_it_is_so() -> None:
    first = failure_condition([], "FailedCreate", "no", NOW)
    again = failure_condition([first], "FailedCreate", "still no", NOW + timedelta(seconds=5))
    assert again.last_transition_time == first.last_transition_time
    rs = replica_set("rs", 1)
    assert plan(rs, [], [], NOW, again).status.conditions == [again]
    conditions = status_patch(plan(rs, [], [], NOW, again).status)["status"]["conditions"]
    assert conditions[0]["message"] == "still no"


def test_claims() -> None:
    """Its own that fit stay, its own that no longer fit are released, fitting orphans are adopted, others' are not."""
    rs = replica_set("rs", 3)
    mine, stray = pod("mine", meta=OWNED), pod("stray", meta=OWNED, labels={"app": "x"})
    orphan, leaving = pod("orphan"), pod("leaving", going=True)
    theirs = pod("theirs", meta=owned_by("ReplicaSet", "other"))
    claims = claim(rs, from_label_selector(rs.spec.selector), [mine, stray, orphan, leaving, theirs])
    assert [p.name for p in claims.owned] == ["mine", "orphan"]
    assert claims.adopt == [orphan]
    assert claims.release == [stray]
    patch = adoption(REPLICA_SET, rs, orphan)["metadata"]
    assert (patch["uid"], patch["ownerReferences"]) == ("uid-orphan", [reference_to(REPLICA_SET, rs)])
    assert without_owners(stray, frozenset(["uid-rs"]))["metadata"]["ownerReferences"] is None


def test_the_next_pod() -> None:
    rs = replica_set("web-abc", 1)
    tree = pod_tree(rs.spec.template, rs, reference_to(REPLICA_SET, rs))
    assert tree["metadata"]["generateName"] == "web-abc-"
    assert tree["metadata"]["labels"] == {"app": "web"}
    assert tree["metadata"]["ownerReferences"][0]["controller"] is True
    assert tree["spec"] == rs.spec.template["spec"]
