"""The story of a StatefulSet's pods: created upwards, deleted downwards, replaced from the last to the partition."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.apps import ControllerRevision, StatefulSet
from kubesvc.api.meta import parse_time
from kubesvc.api.pods import Pod
from kubesvc.api.registry import STATEFUL_SET
from kubesvc.api.storage import PersistentVolumeClaim
from kubesvc.controllers import revisions
from kubesvc.controllers.statefulset.identity import REVISION, claim_trees, is_of_a_claim, new_pod, ordinal_of
from kubesvc.controllers.statefulset.plan import plan
from kubesvc.controllers.statefulset.retention import adjusted, has_other_controller, is_going, owners
from support.objects import make, owned_by, pod

NOW = parse_time("2026-01-01T01:00:00Z")
PARALLEL = {"podManagementPolicy": "Parallel"}


def db(replicas: int, **spec: Any) -> StatefulSet:
    return make(StatefulSet, "db", spec={"replicas": replicas, "serviceName": "db", **spec})


def replica(ordinal: int, revision: str = "new", **more: Any) -> Pod:
    return pod(f"db-{ordinal}", labels={REVISION: revision}, **more)


def partition(count: int) -> dict[str, Any]:
    return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": count}}}


@pytest.mark.parametrize(
    ("sts", "pods", "create", "delete"),
    [
        pytest.param(db(3), [], [0], [], id="the first alone"),
        pytest.param(db(3), [replica(0, ready=False)], [], [], id="the second waits for the first"),
        pytest.param(db(3), [replica(0)], [1], [], id="and comes when it is ready"),
        pytest.param(db(3, **PARALLEL), [], [0, 1, 2], [], id="Parallel: all at once"),
        pytest.param(db(3), [replica(0), replica(2)], [1], [], id="a gap is filled"),
        pytest.param(db(3), [replica(0), replica(1, going=True), replica(2)], [], [], id="one going is waited for"),
        pytest.param(db(2), [replica(0), replica(1, phase="Failed")], [], ["db-1"], id="one that failed is replaced"),
        pytest.param(db(1), [replica(0), replica(1), replica(2)], [], ["db-2"], id="the last goes first"),
        pytest.param(db(1), [replica(0), replica(1), replica(2, going=True)], [], [], id="one at a time"),
        pytest.param(db(1, **PARALLEL), [replica(0), replica(1), replica(2)], [], ["db-2", "db-1"], id="or together"),
        pytest.param(db(2), [replica(0), replica(1, "old")], [], ["db-1"], id="an old one is replaced"),
        pytest.param(db(2), [replica(0, "old"), replica(1, "old")], [], ["db-1"], id="from the last"),
        pytest.param(db(2), [replica(0, "old"), replica(1, ready=False)], [], [], id="when the one after it is ready"),
        pytest.param(db(2, **partition(1)), [replica(0, "old"), replica(1)], [], [], id="not below the partition"),
        pytest.param(
            db(2, updateStrategy={"type": "OnDelete"}), [replica(0, "old"), replica(1, "old")], [], [], id="OnDelete"
        ),
        pytest.param(db(2, ordinals={"start": 5}), [replica(5)], [6], [], id="ordinals from five"),
    ],
)
def test_the_next_step(sts: StatefulSet, pods: list[Pod], create: list[int], delete: list[str]) -> None:
    decided = plan(sts, pods, "old", "new", NOW)
    assert [o for o, _ in decided.create] == create
    assert [p.name for p in decided.delete] == delete


def test_below_the_partition_the_current_revision_is_made() -> None:
    decided = plan(db(3, **PARALLEL, **partition(2)), [], "old", "new", NOW)
    assert decided.create == ((0, False), (1, False), (2, True))


def test_counts_and_the_end_of_an_update() -> None:
    status = plan(db(2), [replica(0, "old"), replica(1)], "old", "new", NOW).status
    assert (status.replicas, status.current_replicas, status.updated_replicas, status.current_revision) == (
        2,
        1,
        1,
        "old",
    )
    status = plan(db(2), [replica(0), replica(1)], "old", "new", NOW).status
    assert (status.current_replicas, status.updated_replicas, status.current_revision) == (2, 2, "new")


def test_identity() -> None:
    sts = db(2, volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}])
    tree = new_pod(sts, 1, {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}, "db-abc")
    assert (tree["metadata"]["name"], tree["spec"]["hostname"], tree["spec"]["subdomain"]) == ("db-1", "db-1", "db")
    assert tree["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]
    assert [c["metadata"]["name"] for c in claim_trees(sts, 1)] == ["data-db-1"]
    assert [ordinal_of(sts, n) for n in ("db-0", "db-12", "db-01", "db-x", "other-1", "db")] == [0, 12, *[None] * 4]


def test_a_revision_puts_its_template_back_and_old_ones_go() -> None:
    """The newest with a template is found whatever its number; those in use don't count."""
    templates = [{"spec": {"containers": [{"name": "c", "image": f"host:{n}"}]}} for n in range(4)]
    trees = [revisions.revision_tree(STATEFUL_SET, db(1), t, n + 1, 0) for n, t in enumerate(templates)]
    known = [make(ControllerRevision, t["metadata"]["name"], data=t["data"], revision=t["revision"]) for t in trees]
    found = revisions.with_template(templates[1], known)
    assert found is known[1]
    assert revisions.template_of(known[1]) == templates[1]
    assert known[1].data["spec"]["template"]["$patch"] == "replace"
    assert revisions.next_number(known) == 5
    assert revisions.surplus(known, {known[3].name, known[0].name}, 1) == [known[1]]


# ── whom claims belong to ──


def policy(deleted: str, scaled: str) -> dict[str, Any]:
    return {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}


def reference(kind: str, uid: str, controller: bool | None = True, name: str = "") -> dict[str, Any]:
    version = {"Pod": "v1", "StatefulSet": "apps/v1"}.get(kind, "example.com/v1")
    found = {"apiVersion": version, "kind": kind, "name": name or uid.removeprefix("uid-"), "uid": uid}
    return found | ({"controller": controller, "blockOwnerDeletion": True} if controller else {})


SET, POD, USER, MANAGER = (
    reference("StatefulSet", "uid-db"),
    reference("Pod", "uid-db-1"),
    reference("Backup", "uid-b", None),
    reference("Operator", "uid-o"),
)


@pytest.mark.parametrize(
    ("deleted", "scaled", "before", "wanted", "condemned"),
    [
        ("Retain", "Retain", [], None, None),
        ("Retain", "Retain", [SET], [], []),
        ("Retain", "Retain", [POD, USER], [USER], [USER]),
        ("Delete", "Retain", [], [SET], [SET]),
        ("Delete", "Retain", [SET], None, None),
        ("Retain", "Delete", [], None, [POD]),
        ("Retain", "Delete", [POD], [], None),
        ("Delete", "Delete", [SET], None, [POD]),
        ("Delete", "Delete", [POD, USER], [USER, SET], None),
        ("Delete", "Retain", [reference("StatefulSet", "uid-db", None)], [SET], [SET]),
        ("Delete", "Delete", [reference("StatefulSet", "other", name="db")], None, None),
        ("Delete", "Delete", [reference("Pod", "other", name="db-1")], None, None),
        ("Delete", "Delete", [MANAGER], None, None),
        ("Delete", "Delete", [MANAGER, SET], [MANAGER], [MANAGER]),
        ("Retain", "Retain", [MANAGER], None, None),
    ],
    ids=[
        "kept",
        "kept from now on",
        "others' references stay",
        "goes with the set",
        "does already",
        "goes when scaled",
        "its pod is wanted again",
        "from the set to the pod",
        "and back",
        "as its controller",
        "an earlier set's",
        "an earlier pod's",
        "somebody else manages it",
        "and alone",
        "or may, where all is kept",
    ],
)
def test_whom_a_claim_belongs_to(
    deleted: str, scaled: str, before: list[Any], wanted: list[Any] | None, condemned: list[Any] | None
) -> None:
    """While its pod is wanted, and when it is beyond the last."""
    sts, one = db(1, **policy(deleted, scaled)), replica(1)
    claim = make(PersistentVolumeClaim, "data-db-1", {"ownerReferences": before})
    found = [adjusted(sts, one, claim, beyond) for beyond in (False, True)]
    assert found == [wanted, condemned]
    if MANAGER in before:
        assert has_other_controller(sts, one, claim) is ("Delete" in (deleted, scaled))


def test_a_new_claim_belongs_to_the_set_from_the_beginning() -> None:
    made = [owners(db(1, **policy(*both)), None, False) for both in (("Delete", "Delete"), ("Retain", "Delete"))]
    assert made == [[SET], []]


def test_a_pod_waits_until_the_claims_of_one_before_it_are_gone() -> None:
    """If they are to go."""
    old = make(PersistentVolumeClaim, "data-db-1", owned_by("Pod", "db-1"))
    assert is_going(db(2, **policy("Retain", "Delete")), "db-1", old)
    assert not is_going(db(2, **policy("Retain", "Delete")), "db-0", old)
    assert not is_going(db(2, **policy("Delete", "Retain")), "db-1", old)


def test_a_claims_name_says_whose_it_is() -> None:
    sts = db(1, volumeClaimTemplates=[{"metadata": {"name": "data"}}])
    names = ("data-db-0", "data-db-12", "data-db-x", "logs-db-0", "data-other-0")
    assert [is_of_a_claim(sts, name) for name in names] == [True, True, False, False, False]
