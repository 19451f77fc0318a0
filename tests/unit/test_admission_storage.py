"""What claims, volumes and the templates of claims must look like, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.api.meta import JSON
from kubesvc.api.registry import DEPLOYMENT, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET, Kind
from kubesvc.apiserver import admission
from support.admission import admit, texts

CLAIM: JSON = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
VOLUME: JSON = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}
CONTAINER: JSON = {"name": "c", "image": "host"}


def named(kind: Kind, spec: JSON, name: str = "x", **meta: Any) -> JSON:
    metadata = {"name": name, **({"namespace": "default"} if kind.namespaced else {}), **meta}
    return {"kind": kind.kind, "metadata": metadata, "spec": spec}


def scratch(template: JSON | None, name: str = "scratch") -> JSON:
    source = {} if template is None else {"volumeClaimTemplate": template}
    return {"containers": [CONTAINER], "volumes": [{"name": name, "ephemeral": source}]}


def test_a_class_may_come_to_a_claim_that_has_none_and_no_other_after() -> None:
    without, fast, slow = (
        admit(PERSISTENT_VOLUME_CLAIM, named(PERSISTENT_VOLUME_CLAIM, {**CLAIM, **more}))
        for more in ({}, {"storageClassName": "fast"}, {"storageClassName": "slow"})
    )
    assert texts(PERSISTENT_VOLUME_CLAIM, fast, without) == []
    for new in (slow, without):
        (told,) = texts(PERSISTENT_VOLUME_CLAIM, new, fast)
        assert told.startswith("spec: Forbidden: spec is immutable after creation")


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"replicas": 3}, False),
        ({"minReadySeconds": 3, "updateStrategy": {"type": "OnDelete"}}, False),
        ({"revisionHistoryLimit": 1, "ordinals": {"start": 1}}, False),
        ({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}, False),
        ({"serviceName": "other"}, True),
        ({"podManagementPolicy": "Parallel"}, True),
        ({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": CLAIM}]}, True),
        ({"selector": {"matchLabels": {"app": "y"}}}, True),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_of_a_stateful_set_may_change(change: JSON, refused: bool) -> None:
    pods = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [CONTAINER]}}
    spec = {"selector": {"matchLabels": {"app": "x"}}, "serviceName": "x", "template": pods}
    old = admit(STATEFUL_SET, named(STATEFUL_SET, spec))
    told = [t for t in texts(STATEFUL_SET, named(STATEFUL_SET, {**spec, **change}), old) if t.startswith("spec: ")]
    forbidden = (
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
    )
    assert [t.startswith(forbidden) for t in told] == [True] * refused


@pytest.mark.parametrize(
    ("kind", "spec", "finalizer"),
    [
        (PERSISTENT_VOLUME_CLAIM, CLAIM, "kubernetes.io/pvc-protection"),
        (PERSISTENT_VOLUME, VOLUME, "kubernetes.io/pv-protection"),
    ],
    ids=["claim", "volume"],
)
def test_what_is_stored_is_protected_from_the_beginning(kind: Kind, spec: JSON, finalizer: str) -> None:
    """Once, and beside other finalizers; who takes it away later has done so."""
    made = admit(kind, named(kind, spec))
    assert made["metadata"]["finalizers"] == [finalizer]
    assert admit(kind, named(kind, spec, finalizers=["a/b"]))["metadata"]["finalizers"] == ["a/b", finalizer]
    assert admit(kind, named(kind, spec, finalizers=[finalizer]))["metadata"]["finalizers"] == [finalizer]
    assert "finalizers" not in admit(kind, named(kind, made["spec"]), made)["metadata"]


@pytest.mark.parametrize(
    ("affinity", "text"),
    [
        ({}, "spec.nodeAffinity.required: Required value: must specify required node constraints"),
        (
            {"required": {"nodeSelectorTerms": []}},
            "spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        ({"required": {"nodeSelectorTerms": [{}]}}, None),
    ],
    ids=["empty", "no terms", "a term"],
)
def test_a_volumes_node_affinity_says_something(affinity: JSON, text: str | None) -> None:
    assert texts(PERSISTENT_VOLUME, named(PERSISTENT_VOLUME, VOLUME | {"nodeAffinity": affinity})) == (
        [] if text is None else [text]
    )


HERE = "spec.volumes[0].ephemeral.volumeClaimTemplate"


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ({"spec": CLAIM}, []),
        ({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": CLAIM}, []),
        (None, [f"{HERE}: Required value"]),
        (
            {"metadata": {"name": "n"}, "spec": CLAIM},
            [f"{HERE}.metadata.name: Forbidden: cannot be set for an ephemeral volume"],
        ),
        (
            {"spec": {}},
            [
                f"{HERE}.spec.accessModes: Required value: at least 1 access mode is required",
                f"{HERE}.spec.resources[storage]: Required value",
            ],
        ),
    ],
    ids=["a claim", "with labels", "nothing", "a name", "an empty claim"],
)
def test_an_ephemeral_volume_says_what_claim_it_wants(template: JSON | None, found: list[str]) -> None:
    """In a pod, and in a template of one."""
    assert texts(POD, named(POD, scratch(template))) == found
    labels = {"app": "web"}
    spec = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": scratch(template)},
    }
    assert texts(DEPLOYMENT, named(DEPLOYMENT, spec)) == [f"spec.template.{text}" for text in found]


def test_an_ephemeral_volumes_claim_has_its_defaults_and_a_name_that_it_can_have() -> None:
    made = admit(POD, named(POD, scratch({"spec": CLAIM})))
    assert made["spec"]["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]["volumeMode"] == "Filesystem"
    name = "x" * 250
    (text,) = texts(POD, named(POD, scratch({"spec": CLAIM}), name))
    assert text.startswith(
        f'spec.volumes[0].name: Invalid value: "scratch": PVC name "{name}-scratch": must be no more'
    )
    assert admission.warnings(POD, made) == []


def test_a_volume_of_a_claim_names_it() -> None:
    spec = {"containers": [CONTAINER], "volumes": [{"name": "v", "persistentVolumeClaim": {}}]}
    assert "spec.volumes[0].persistentVolumeClaim.claimName: Required value" in texts(POD, named(POD, spec))


def test_a_stateful_set_keeps_claims_or_deletes_them() -> None:
    labels = {"app": "db"}
    spec: JSON = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}},
    }
    for policy in ({}, {"whenDeleted": "Delete"}, {"whenDeleted": "Delete", "whenScaled": "Delete"}):
        assert texts(STATEFUL_SET, named(STATEFUL_SET, spec | {"persistentVolumeClaimRetentionPolicy": policy})) == []
    wrong = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Keep"}}
    assert texts(STATEFUL_SET, named(STATEFUL_SET, spec | wrong)) == [
        'spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Keep": supported values: '
        '"Retain", "Delete"'
    ]
