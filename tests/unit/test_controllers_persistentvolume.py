"""Claims and volumes: who gets which, what is made, what is done with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubesvc.api.storage import (
    IS_DEFAULT,
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    default_class,
    size,
)
from kubesvc.controllers.persistentvolume.plan import Plan, plan, storage_class
from support.objects import CREATED

STANDARD = msgspec.convert(storage_class(), type=StorageClass)


def claim(
    name: str, storage: str = "1Gi", *, phase: str = "Pending", annotations: dict[str, str] | None = None, **spec: Any
) -> PersistentVolumeClaim:
    whole = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}} | spec
    meta = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "annotations": annotations or {}}
    return msgspec.convert({"metadata": meta, "spec": whole, "status": {"phase": phase}}, type=PersistentVolumeClaim)


def volume(name: str, storage: str = "1Gi", *, of: str = "", phase: str = "Available", **spec: Any) -> PersistentVolume:
    """Of what comes under them, labels and deletionTimestamp are metadata."""
    more = {k: spec.pop(k) for k in ("labels", "deletionTimestamp") if k in spec}
    whole: dict[str, Any] = {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": storage}}
    whole |= {"hostPath": {"path": f"/v/{name}"}} | spec
    if of:
        whole["claimRef"] = {"namespace": "shop", "name": of, "uid": f"uid-{of}"}
    meta = {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER} if name.startswith("pvc-") else {}} | more
    return msgspec.convert({"metadata": meta, "spec": whole, "status": {"phase": phase}}, type=PersistentVolume)


def decide(claims: list[PersistentVolumeClaim], volumes: list[PersistentVolume], directory: str = "/d") -> Plan:
    return plan(claims, volumes, {"standard": STANDARD}, directory)


def bound(found: Plan) -> dict[str, str]:
    return {c.name: v.name for c, v in found.bind}


def test_a_claim_that_names_no_class_gets_a_directory_made_for_it() -> None:
    found = decide([claim("data")], [])
    ((_, tree),) = found.make
    assert tree["metadata"]["name"] == "pvc-uid-data"
    assert tree["spec"]["hostPath"]["path"] == "/d/pvc-uid-data"
    assert tree["spec"]["claimRef"]["uid"] == "uid-data"
    assert tree["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    made = msgspec.convert(tree, type=PersistentVolume)
    assert bound(decide([claim("data")], [made])) == {"data": "pvc-uid-data"}


def test_a_bound_pair_is_left_alone() -> None:
    assert decide([claim("data", phase="Bound", volumeName="v")], [volume("v", of="data", phase="Bound")]) == Plan()


def test_the_smallest_free_volume_that_fits_is_taken() -> None:
    volumes = [volume("big", "10Gi"), volume("small", "1Gi"), volume("right", "2Gi"), volume("other", "2Gi", of="gone")]
    assert bound(decide([claim("data", "1500Mi", storageClassName="")], volumes)) == {"data": "right"}


def test_a_claim_without_a_class_gets_the_default_one_once_there_is_one() -> None:
    """It may have come before the class did."""
    early, named = claim("early"), claim("named", storageClassName="")
    assert plan([early], [], {}, "/d").waiting[0][1] == "FailedBinding"
    found = decide([early, named], [])
    assert [(c.name, name) for c, name in found.name_class] == [("early", "standard")]
    assert [tree["spec"]["storageClassName"] for _, tree in found.make] == ["standard"]


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        ([("a", CREATED, "true"), ("b", CREATED, "false")], "a"),
        ([("a", CREATED, "true"), ("b", "2030-01-01T00:00:00Z", "true")], "b"),
        ([("b", CREATED, "true"), ("a", CREATED, "true")], "a"),
        ([("a", CREATED, "false")], None),
    ],
    ids=["the one that says so", "the newest", "the first by name", "none"],
)
def test_which_class_is_the_default(classes: list[tuple[str, str, str]], chosen: str | None) -> None:
    found = default_class(
        msgspec.convert(
            {"metadata": {"name": name, "creationTimestamp": made, "annotations": {IS_DEFAULT[0]: says}}}, StorageClass
        )
        for name, made, says in classes
    )
    assert (found.name if found else None) == chosen


def test_two_claims_never_get_one_volume() -> None:
    found = decide([claim("a", storageClassName=""), claim("b", storageClassName="")], [volume("only")])
    assert bound(found) == {"a": "only"}


def test_a_volume_kept_for_a_claim_goes_to_that_one() -> None:
    kept = volume("kept", "5Gi", claimRef={"namespace": "shop", "name": "b"})
    claims = [claim("a", storageClassName=""), claim("b", storageClassName="")]
    assert bound(decide(claims, [kept, volume("free")])) == {"a": "free", "b": "kept"}


def test_a_claim_that_names_its_volume_waits_for_that_one() -> None:
    wanted = claim("data", volumeName="mine")
    assert bound(decide([wanted], [volume("other")])) == {}
    assert bound(decide([wanted], [volume("other"), volume("mine")])) == {"data": "mine"}


def test_modes_class_and_an_unknown_class_decide() -> None:
    assert bound(decide([claim("a", accessModes=["ReadWriteMany"], storageClassName="")], [volume("v")])) == {}
    assert bound(decide([claim("a", storageClassName="fast")], [volume("v")])) == {}
    assert bound(decide([claim("a", storageClassName="fast")], [volume("v", storageClassName="fast")])) == {"a": "v"}


def test_a_volume_whose_claim_is_gone_is_released_or_removed() -> None:
    """One made for the claim goes, unless it is to be retained; one that somebody made never does."""
    made = volume("pvc-1", of="gone", phase="Bound", persistentVolumeReclaimPolicy="Delete")
    retained = volume("pvc-2", of="gone", phase="Bound", persistentVolumeReclaimPolicy="Retain")
    own = volume("own", of="gone", phase="Bound", persistentVolumeReclaimPolicy="Delete")
    found = decide([], [made, retained, own])
    assert [v.name for v in found.remove] == ["pvc-1"]
    assert [(v.name, phase) for v, phase in found.phases] == [("pvc-2", "Released"), ("own", "Released")]
    asked = volume("pvc-1", of="gone", phase="Released", persistentVolumeReclaimPolicy="Delete")
    assert [v.name for v in decide([], [asked]).remove] == ["pvc-1"]
    going = msgspec.structs.replace(asked, metadata=msgspec.structs.replace(asked.metadata, deletion_timestamp=CREATED))
    assert decide([], [going]) == Plan()


def test_a_late_claim_gets_what_is_given_or_made_where_its_pod_goes() -> None:
    """Until then it is said for whom it waits."""
    late = {"standard": msgspec.structs.replace(STANDARD, volume_binding_mode="WaitForFirstConsumer")}
    free, given = volume("free", storageClassName="standard"), volume("given", of="data", storageClassName="standard")

    def decided(one: PersistentVolumeClaim, volumes: list[PersistentVolume], pods: tuple[str, ...] = ()) -> Plan:
        return plan([one], volumes, late, "/d", lambda claim: pods)

    waits = [decided(claim("data"), [free], pods) for pods in ((), ("p",), ("p", "q"))]
    assert [(bound(w), w.make) for w in waits] == [({}, [])] * 3
    assert [w.waiting[0][1:] for w in waits] == [
        ("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        ("WaitForPodScheduled", "waiting for pod p to be scheduled"),
        ("WaitForPodScheduled", "waiting for pods p,q to be scheduled"),
    ]
    assert bound(decided(claim("data"), [free, given])) == {"data": "given"}
    assert bound(decided(claim("data", volumeName="free"), [free])) == {"data": "free"}
    selected = claim("data", annotations={SELECTED_NODE: "n1"})
    assert [tree["metadata"]["name"] for _, tree in decided(selected, []).make] == ["pvc-uid-data"]


def test_a_selector_and_a_mode_decide_and_what_is_going_is_for_nobody() -> None:
    fast = volume("v", labels={"disk": "ssd"})
    wanted = claim("a", storageClassName="", selector={"matchLabels": {"disk": "ssd"}})
    assert bound(decide([wanted], [volume("w"), fast])) == {"a": "v"}
    assert bound(decide([wanted], [volume("w")])) == {}
    assert bound(decide([claim("a", storageClassName="", volumeMode="Block")], [volume("v")])) == {}
    assert bound(decide([claim("a", storageClassName="")], [volume("v", deletionTimestamp=CREATED)])) == {}


def test_without_a_directory_none_is_made() -> None:
    assert decide([claim("data")], [], "").make == []


@pytest.mark.parametrize(
    ("spec", "reason", "why"),
    [
        pytest.param(
            {"storageClassName": "fast"},
            "ProvisioningFailed",
            'storageclass.storage.k8s.io "fast" not found; there are: cloud, standard',
            id="a class that isn't there",
        ),
        pytest.param(
            {"storageClassName": ""},
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set: leave storageClassName out to "
            "have one made",
            id="no class",
        ),
        pytest.param(
            {"volumeName": "mine"},
            "FailedBinding",
            "volume \"mine\" isn't there, or is another claim's",
            id="a volume by name",
        ),
        pytest.param(
            {"storageClassName": "cloud"},
            "ExternalProvisioning",
            "waiting for a volume that the provisioner 'csi.example' or somebody makes",
            id="somebody else's class",
        ),
    ],
)
def test_a_claim_that_waits_is_told_for_what(spec: dict[str, str], reason: str, why: str) -> None:
    cloud = StorageClass(provisioner="csi.example")
    found = plan([claim("data", **spec)], [], {"standard": STANDARD, "cloud": cloud}, "/d")
    assert [(c.name, *said) for c, *said in found.waiting] == [("data", reason, why)]


def test_quantities_are_bytes() -> None:
    assert [size(text) for text in ("1Ki", "1.5Gi", "2M", "7", 8, None)] == [1024, 1.5 * 2**30, 2e6, 7, 8, 0]
