"""Where a pod's claims let it go: tables of claims and volumes, and what is said."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.pods import Pod
from kubesvc.api.storage import SELECTED_NODE, PersistentVolume, PersistentVolumeClaim, StorageClass
from kubesvc.controllers.scheduler.plan import Decision, plan
from kubesvc.controllers.scheduler.snapshot import Candidate
from kubesvc.controllers.scheduler.volumes import Storage
from support.objects import CREATED, make, node, owned_by, pod

WAIT = {"volumeBindingMode": "WaitForFirstConsumer"}
MADE = make(StorageClass, "made", provisioner="p")
LATE = make(StorageClass, "late", provisioner="p", **WAIT)
LOCAL = make(StorageClass, "local", provisioner="kubernetes.io/no-provisioner", **WAIT)
IN_A = [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]
ZONED = make(StorageClass, "zoned", provisioner="p", allowedTopologies=IN_A, **WAIT)
CLASSES = {c.name: c for c in (MADE, LATE, LOCAL, ZONED)}
NODES = [Candidate(node(name, {"zone": name[0]})) for name in ("a1", "b1")]


def claim(
    name: str, class_: str = "made", *, to: str = "", mode: str = "ReadWriteOnce", size: str = "1Gi", **meta: Any
) -> PersistentVolumeClaim:
    """Bound to the volume `to`."""
    spec = {"storageClassName": class_, "accessModes": [mode], "resources": {"requests": {"storage": size}}}
    status = {"phase": "Bound" if to else "Pending"}
    return make(PersistentVolumeClaim, name, meta, spec=spec | {"volumeName": to}, status=status)


def volume(name: str, class_: str = "local", *, at: str = "", size: str = "1Gi", **spec: Any) -> PersistentVolume:
    """Reached from the zone `at`, or from everywhere."""
    whole = {"storageClassName": class_, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}} | spec
    if at:
        terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [at]}]}]
        whole["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    return make(PersistentVolume, name, {"namespace": ""}, spec=whole, status={"phase": "Available"})


def using(*names: str, **more: Any) -> Pod:
    volumes = [{"name": f"v-{n}", "persistentVolumeClaim": {"claimName": n}} for n in names]
    return pod("p", node="", volumes=volumes, **more)


SCRATCH = pod("p", node="", volumes=[{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}])


def decide(
    one: Pod, claims: list[PersistentVolumeClaim], volumes: list[PersistentVolume] | None = None, used: str = ""
) -> Decision:
    known = {v.name: v for v in volumes or ()}
    return plan(one, NODES, storage=Storage({c.name: c for c in claims}, known, CLASSES, frozenset(used.split())))


@pytest.mark.parametrize(
    ("one", "claims", "why"),
    [
        (using("data"), [], 'persistentvolumeclaim "data" not found'),
        (
            using("data"),
            [claim("data", to="v", deletionTimestamp=CREATED)],
            'persistentvolumeclaim "data" is being deleted',
        ),
        (using("data"), [claim("data")], "pod has unbound immediate PersistentVolumeClaims"),
        (using("data"), [claim("data", "unknown")], "pod has unbound immediate PersistentVolumeClaims"),
        (using("a", "b"), [claim("a", to="v"), claim("b")], "pod has unbound immediate PersistentVolumeClaims"),
        (
            SCRATCH,
            [],
            'waiting for ephemeral volume controller to create the persistentvolumeclaim "p-scratch"',
        ),
        (
            SCRATCH,
            [claim("p-scratch", to="v")],
            "PVC default/p-scratch was not created for pod default/p (pod is not owner)",
        ),
    ],
    ids=["not there", "going", "unbound", "of no class", "one of two", "not made yet", "another's"],
)
def test_a_claim_holds_the_pod_back_from_every_node(one: Pod, claims: list[PersistentVolumeClaim], why: str) -> None:
    decided = decide(one, claims, [volume("v")])
    assert decided.message == f"0/2 nodes are available: {why}."
    assert decided.passing is why.startswith(("pod has unbound", "waiting for"))


@pytest.mark.parametrize(
    ("claims", "volumes", "where", "message"),
    [
        ([claim("data", to="v")], [volume("v")], "a1", ""),
        ([claim("data", to="v")], [volume("v", at="b")], "b1", ""),
        ([claim("data", to="v")], [volume("v", at="c")], "", "2 node(s) didn't match PersistentVolume's node affinity"),
        (
            [claim("data", to="v"), claim("more", to="w")],
            [volume("v", at="a"), volume("w", at="b")],
            "",
            "2 node(s) didn't match PersistentVolume's node affinity",
        ),
        (
            [claim("data", to="v")],
            [],
            "",
            "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        ),
    ],
    ids=["anywhere", "where its volume is", "nowhere", "not in two places", "the volume is gone"],
)
def test_a_bound_volume_says_where(
    claims: list[PersistentVolumeClaim], volumes: list[PersistentVolume], where: str, message: str
) -> None:
    decided = decide(using(*(c.name for c in claims)), claims, volumes)
    assert (decided.node, decided.message) == (where, f"0/2 nodes are available: {message}." if message else "")
    assert not decided.bindings


def test_an_ephemeral_volumes_claim_is_like_any_other() -> None:
    assert decide(SCRATCH, [claim("p-scratch", to="v", **owned_by("Pod", "p"))], [volume("v", at="b")]).node == "b1"


NONE_FITS = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
SELECTED = {"annotations": {SELECTED_NODE: "b1"}}


@pytest.mark.parametrize(
    ("claims", "volumes", "where", "given", "provision"),
    [
        ([claim("x", "late")], [], "a1", {}, ["x"]),
        ([claim("x", "late", **SELECTED)], [], "b1", {}, ["x"]),
        ([claim("x", "zoned")], [], "a1", {}, ["x"]),
        ([claim("x", "local")], [volume("v", at="b")], "b1", {"x": "v"}, []),
        ([claim("x", "local")], [volume("v", at="b"), volume("w", at="a")], "a1", {"x": "w"}, []),
        ([claim("x", "local")], [volume("v", size="9Gi"), volume("w", size="2Gi")], "a1", {"x": "w"}, []),
        ([claim("x", "local")], [volume("v", claimRef={"namespace": "default", "name": "y"})], "", {}, []),
        ([claim("x", "local")], [volume("v", size="1Mi")], "", {}, []),
        ([claim("x", "local"), claim("y", "local")], [volume("v")], "", {}, []),
        (
            [claim("x", "local", size="2Gi"), claim("y", "local")],
            [volume("v", size="2Gi"), volume("w", size="3Gi")],
            "a1",
            {"y": "v", "x": "w"},
            [],
        ),
        (
            [claim("x", "late")],
            [volume("v", "late", claimRef={"namespace": "default", "name": "x", "uid": "uid-x"}, at="b")],
            "b1",
            {"x": "v"},
            [],
        ),
        ([claim("x", "late")], [volume("v", "late", at="b"), volume("w", "late", at="a")], "a1", {"x": "w"}, []),
    ],
    ids=[
        "made wherever the pod goes",
        "where a node was selected",
        "where the class makes any",
        "somebody made one",
        "the node decides which",
        "the smallest that fits",
        "kept for another",
        "too small",
        "one for two",
        "one each, the smaller first",
        "where one is that was given already",
        "one that is there before one is made",
    ],
)
def test_a_late_claim_gets_its_volume_with_the_node(
    claims: list[PersistentVolumeClaim],
    volumes: list[PersistentVolume],
    where: str,
    given: dict[str, str],
    provision: list[str],
) -> None:
    decided = decide(using(*(c.name for c in claims)), claims, volumes)
    assert (decided.node, decided.message) == (where, "" if where else NONE_FITS)
    assert {c.name: v.name for c, v in decided.bindings.volumes} == given
    assert [c.name for c in decided.bindings.provision] == provision


def test_what_is_for_one_pod_is_for_no_second() -> None:
    mine = claim("data", to="v", mode="ReadWriteOncePod")
    assert decide(using("data"), [mine], [volume("v")]).node == "a1"
    refused = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    assert decide(using("data"), [mine], [volume("v")], "data").message == f"0/2 nodes are available: 2 {refused}."
    shared = claim("data", to="v")
    assert decide(using("data"), [shared], [volume("v")], "data").node == "a1"
