"""One kind in two versions: a HorizontalPodAutoscaler is stored as v2 and shown as what is asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kubesvc.api.meta import JSON
from kubesvc.api.registry import HORIZONTAL_POD_AUTOSCALER as V2
from kubesvc.api.registry import HORIZONTAL_POD_AUTOSCALER_V1 as V1
from kubesvc.apiserver import autoscaling
from kubesvc.client.session import Session
from support.apiserver import local_session

TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
BASE: JSON = {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": TARGET}
SELECTOR = {"matchLabels": {"a": "b"}}
MEMORY = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}
METRICS: list[JSON] = [
    MEMORY,
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "500m"}}},
    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {
        "type": "Utilization", "averageUtilization": 60}}},
    {"type": "Pods", "pods": {"metric": {"name": "qps", "selector": SELECTOR}, "target": {
        "type": "AverageValue", "averageValue": "10"}}},
    {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": TARGET, "target": {
        "type": "Value", "value": "2k"}}},
    {"type": "External", "external": {"metric": {"name": "queue", "selector": SELECTOR}, "target": {
        "type": "AverageValue", "averageValue": "30"}}},
]  # fmt: skip
BEHAVIOR: JSON = {"scaleDown": {"stabilizationWindowSeconds": 60}}
CONDITION: JSON = {"type": "AbleToScale", "status": "True", "reason": "r", "message": "m"}


def hpa(spec: JSON, kind: Any = V2, **more: Any) -> JSON:
    metadata = {"name": "web", "namespace": "default"}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": BASE | spec, **more}


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as session:
        yield session


@pytest.mark.parametrize(
    ("v2", "v1"),
    [
        pytest.param({"metrics": [autoscaling.cpu(50)]}, {"targetCPUUtilizationPercentage": 50}, id="CPU"),
        pytest.param({"metrics": [autoscaling.cpu(80)]}, {"targetCPUUtilizationPercentage": 80}, id="the default"),
    ],
)
async def test_what_one_version_writes_the_other_reads(session: Session, v2: JSON, v1: JSON) -> None:
    await session.create(V1, hpa(v1, V1))
    assert (await session.get(V2, "default", "web"))["spec"] == BASE | v2
    await session.delete(V2, "default", "web")
    await session.create(V2, hpa(v2))
    found = await session.get(V1, "default", "web")
    assert (found["apiVersion"], found["kind"], found["spec"]) == ("autoscaling/v1", V1.kind, BASE | v1)
    assert "annotations" not in found["metadata"]


async def test_nothing_said_about_metrics_means_80_percent_of_cpu_in_both(session: Session) -> None:
    made = await session.create(V1, hpa({}, V1))
    assert made["spec"]["targetCPUUtilizationPercentage"] == 80
    assert (await session.get(V2, "default", "web"))["spec"]["metrics"] == [autoscaling.cpu(80)]


@pytest.mark.parametrize("metrics", [[m] for m in METRICS] + [METRICS, [autoscaling.cpu(5), *METRICS]])
def test_a_client_of_v1_that_sends_back_what_it_got_loses_nothing(metrics: list[JSON]) -> None:
    tree = hpa({"metrics": metrics, "behavior": BEHAVIOR}, status={"desiredReplicas": 2, "conditions": [CONDITION]})
    tree["metadata"]["annotations"] = {"mine": "x"}
    shown = autoscaling.to_v1(tree)
    assert set(shown["spec"]) <= {*BASE, "targetCPUUtilizationPercentage"}
    assert shown["status"] == {"desiredReplicas": 2}
    assert shown["metadata"]["annotations"]["mine"] == "x"
    assert autoscaling.to_v2(shown) == tree


def test_metrics_in_annotations_are_in_the_shape_of_v1() -> None:
    shown = autoscaling.to_v1(hpa({"metrics": [MEMORY]}))
    assert shown["metadata"]["annotations"] == {
        "autoscaling.alpha.kubernetes.io/metrics": '[{"type":"Resource","resource":{"name":"memory",'
        '"targetAverageValue":"1Gi"}}]'
    }


@example('[{"type":"Resource","resource":"x"}]')
@example('[{"type":["Resource"],"resource":{}}]')
@given(
    st.one_of(st.text(), st.recursive(st.none() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
)
def test_an_annotation_that_is_not_ours_does_no_harm(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    for name in ("metrics", "behavior", "conditions"):
        tree = hpa({}, V1)
        tree["metadata"]["annotations"] = {f"autoscaling.alpha.kubernetes.io/{name}": text}
        assert autoscaling.to_v2(tree)["spec"]["metrics"]


async def test_a_patch_in_v1_keeps_what_only_v2_can_say(session: Session) -> None:
    await session.create(V2, hpa({"metrics": [autoscaling.cpu(50), MEMORY], "behavior": BEHAVIOR}))
    await session.patch(V1, "default", "web", {"spec": {"targetCPUUtilizationPercentage": 70, "maxReplicas": 9}})
    spec = (await session.get(V2, "default", "web"))["spec"]
    assert spec == BASE | {"maxReplicas": 9, "metrics": [autoscaling.cpu(70), MEMORY], "behavior": BEHAVIOR}


async def test_a_list_and_a_watch_show_the_version_of_the_request(session: Session) -> None:
    await session.create(V2, hpa({"metrics": [autoscaling.cpu(50)]}))
    for kind in (V1, V2):
        answer = await session.raw("GET", kind.path("default"))
        assert answer.body.startswith(
            b'{"kind":"HorizontalPodAutoscalerList","apiVersion":"%s"' % kind.api_version.encode()
        )
        watched = await session.raw("GET", kind.path("default"), query={"watch": "true"})
        assert watched.stream is not None
        line = await anext(watched.stream)
        assert b'"apiVersion":"%s"' % kind.api_version.encode() in line
        assert (b"targetCPUUtilizationPercentage" in line) == (kind is V1)
