"""What is stored but not acted on is said, field by field; what is acted on is not."""

from __future__ import annotations

import pytest

from kubesvc.api.registry import CRON_JOB, DEPLOYMENT, ENDPOINT_SLICE, JOB, POD, SERVICE, STATEFUL_SET
from kubesvc.apiserver import admission

CONTAINER = {"name": "c", "image": "host"}


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "ClusterIP"},
        {"sessionAffinity": "ClientIP"},
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
        {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        {"ports": [{"port": 1, "protocol": "SCTP"}]},
        {"type": "ExternalName", "externalName": "a.example"},
    ],
)
def test_all_of_a_service_is_acted_on(spec):
    """No field of a Service is stored for nothing."""
    assert admission.warnings(SERVICE, {"metadata": {"name": "x"}, "spec": spec}) == []


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, None),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, None),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}, None),
        ({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}, None),
        ({"volumes": [{"name": "v", "nfs": {"path": "/x"}}]}, "volumes[0].nfs is not served yet"),
        ({"containers": [CONTAINER | {"resources": {"requests": {"cpu": "1"}}}]}, None),
        ({"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}, None),
        ({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}, None),
        ({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}, None),
        ({"volumes": [{"name": "v", "image": {"reference": "web:1"}}]}, None),
        ({"hostUsers": False}, "hostUsers is stored, but not acted on yet: the pod's users are the machine's"),
        (
            {"containers": [CONTAINER | {"securityContext": {"seccompProfile": {"type": "Localhost"}}}]},
            None,
        ),
        (
            {"containers": [CONTAINER | {"volumeMounts": [{"name": "v", "mountPropagation": "Bidirectional"}]}]},
            None,
        ),
        (
            {"containers": [CONTAINER | {"volumeMounts": [{"name": "v", "recursiveReadOnly": "Enabled"}]}]},
            None,
        ),
        (
            {"containers": [CONTAINER | {"securityContext": {"procMount": "Unmasked"}}]},
            "containers[0].securityContext.procMount is stored, but not acted on yet: /proc is masked as ever",
        ),
    ],
)
def test_a_pod_is_told_also_through_a_template(spec, told):
    """The same lines for a Deployment's template, under its path."""
    spec = {"containers": [CONTAINER]} | spec
    for kind, tree, path in (
        (POD, {"spec": spec}, "spec."),
        (DEPLOYMENT, {"spec": {"template": {"spec": spec}}}, "spec.template.spec."),
    ):
        found = admission.warnings(kind, {"metadata": {"name": "x"}} | tree)
        assert [told in line and line.startswith(path) for line in found] == ([] if told is None else [True])


@pytest.mark.parametrize(
    ("kind", "spec", "told"),
    [
        (STATEFUL_SET, {"serviceName": "db", "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}, None),
        (
            STATEFUL_SET,
            {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}},
            None,
        ),
        (JOB, {"backoffLimit": 3, "completionMode": "Indexed"}, None),
        (JOB, {"podFailurePolicy": {"rules": []}, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}, None),
        (JOB, {"successPolicy": {"rules": []}, "managedBy": "acme.io/queue"}, None),
    ],
)
def test_a_workload_is_told_what_of_it_is_not_done(kind, spec, told):
    spec = {"template": {"spec": {"containers": [CONTAINER]}}} | spec
    found = admission.warnings(kind, {"metadata": {"name": "x"}, "spec": spec})
    assert [told in line for line in found] == ([] if told is None else [True])


@pytest.mark.parametrize(
    ("kind", "path", "annotation", "told"),
    [
        (SERVICE, "metadata", "kubesvc.dev/balance", None),
        (SERVICE, "metadata", "kubesvc.dev/blance", "expected one of kubesvc.dev/address-pool, "),
        (SERVICE, "metadata", "kubesvc.dev/weight", "does nothing on a Service: it is for a Pod"),
        (SERVICE, "metadata", "example.com/blance", None),
        (POD, "metadata", "kubesvc.dev/weight", None),
        (POD, "metadata", "kubesvc.dev/wieght", "does nothing on a Pod: expected one of kubesvc.dev/weight"),
        (DEPLOYMENT, "spec.template.metadata", "kubesvc.dev/weight", None),
        (DEPLOYMENT, "spec.template.metadata", "kubesvc.dev/balance", "does nothing on a Pod: it is for a Service"),
        (DEPLOYMENT, "metadata", "kubesvc.dev/weight", "does nothing on a Deployment: it is for a Pod"),
        (CRON_JOB, "spec.jobTemplate.spec.template.metadata", "kubesvc.dev/weight", None),
        (CRON_JOB, "spec.jobTemplate.spec.template.metadata", "kubesvc.dev/balance", "it is for a Service"),
        (ENDPOINT_SLICE, "metadata", "kubesvc.dev/weights", None),
    ],
)
def test_an_annotation_of_ours_that_does_nothing_is_told(kind, path, annotation, told):
    """With its place, and what there is or for whom it is."""
    tree = {"annotations": {annotation: "x"}}
    for name in reversed(path.split(".")):
        tree = {name: tree}
    found = admission.warnings(kind, tree)
    assert [told in line and line.startswith(f"{path}.annotations[{annotation}]") for line in found] == (
        [] if told is None else [True]
    )
