"""The story of a StatefulSet's pods: created upwards, deleted downwards, replaced from the last to the partition."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.apps import ControllerRevision, StatefulSet
from kubesvc.api.meta import parse_time
from kubesvc.api.pods import Pod
from kubesvc.api.registry import STATEFUL_SET
from kubesvc.controllers import revisions
from kubesvc.controllers.statefulset.identity import REVISION, claim_trees, new_pod, ordinal_of
from kubesvc.controllers.statefulset.plan import plan
from support.objects import make, pod

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
