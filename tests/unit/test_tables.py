"""What `kubectl get` prints."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubesvc.api.registry import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    IP_ADDRESS,
    JOB,
    KINDS,
    LEASE,
    NAMESPACE,
    NODE,
    POD,
    SECRET,
    SERVICE,
    SERVICE_CIDR,
    Kind,
)
from kubesvc.apiserver.printing.duration import human
from kubesvc.apiserver.tables import table

JSON = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def made(kind: Kind, name: str = "web", **body: Any) -> JSON:
    metadata = {"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T11:58:00Z"}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata | body.pop("metadata", {}), **body}


def row(kind: Kind, wide: bool = False, **body: Any) -> list[Any]:
    found = table(kind, [made(kind, **body)], NOW, resource_version="7")
    shown = [wide or not c["priority"] for c in found["columnDefinitions"]]
    return [cell for cell, show in zip(found["rows"][0]["cells"], shown, strict=True) if show]


# ── age ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(seconds=-5), "<invalid>"),
        (timedelta(seconds=-1), "0s"),
        (timedelta(seconds=0), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(minutes=9, seconds=59), "9m59s"),
        (timedelta(minutes=10, seconds=1), "10m"),
        (timedelta(minutes=179), "179m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=7, minutes=5), "7h5m"),
        (timedelta(hours=8, minutes=5), "8h"),
        (timedelta(hours=47), "47h"),
        (timedelta(days=2), "2d"),
        (timedelta(days=2, hours=3), "2d3h"),
        (timedelta(days=8, hours=3), "8d"),
        (timedelta(days=729), "729d"),
        (timedelta(days=730), "2y"),
        (timedelta(days=800), "2y70d"),
        (timedelta(days=365 * 9), "9y"),
    ],
)
def test_a_duration_has_two_figures_at_most(duration: timedelta, text: str) -> None:
    assert human(duration) == text


# ── the table itself ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_carries_what_was_asked_for_of_each_object() -> None:
    tree = made(CONFIG_MAP, data={"a": "b"})
    for include, expected in (
        ("None", None),
        ("Metadata", {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": tree["metadata"]}),
        ("Object", tree),
    ):
        found = table(CONFIG_MAP, [tree], NOW, resource_version="7", include=include)
        assert found["kind"] == "Table"
        assert found["metadata"] == {"resourceVersion": "7"}
        assert found["rows"][0].get("object") == expected


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.kind)
def test_an_object_with_nothing_but_a_name_is_printed(kind: Kind) -> None:
    found = table(kind, [{"metadata": {"name": "x"}}], NOW, resource_version="1")
    assert len(found["rows"][0]["cells"]) == len(found["columnDefinitions"])
    assert "x" in found["rows"][0]["cells"]


# ── pods ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def running(**more: Any) -> JSON:
    return {"name": "c", "ready": True, "state": {"running": {}}} | more


def waiting(reason: str, **more: Any) -> JSON:
    return {"name": "c", "ready": False, "state": {"waiting": {"reason": reason}}} | more


def ended(code: int, reason: str = "", **more: Any) -> JSON:
    state = {"exitCode": code} | ({"reason": reason} if reason else {})
    return {"name": "c", "ready": False, "state": {"terminated": state}} | more


@pytest.mark.parametrize(
    ("status", "spec", "metadata", "expected"),
    [
        pytest.param({"phase": "Pending"}, {}, {}, ("0/1", "Pending"), id="just made"),
        pytest.param({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]}, {}, {},
                     ("0/1", "ContainerCreating"), id="being started"),
        pytest.param({"phase": "Pending", "containerStatuses": [waiting("ErrImagePull")]}, {}, {},
                     ("0/1", "ErrImagePull"), id="no such image"),
        pytest.param({"phase": "Running", "containerStatuses": [running()]}, {}, {}, ("1/1", "Running"), id="running"),
        pytest.param({"phase": "Running", "containerStatuses": [running(ready=False)]}, {}, {}, ("0/1", "Running"),
                     id="running, not ready"),
        pytest.param({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}, {}, {},
                     ("0/1", "CrashLoopBackOff"), id="failing again and again"),
        pytest.param({"phase": "Running", "containerStatuses": [ended(1, "Error")]}, {}, {}, ("0/1", "Error"),
                     id="failed"),
        pytest.param({"phase": "Running", "containerStatuses": [ended(3)]}, {}, {}, ("0/1", "ExitCode:3"),
                     id="failed without a reason"),
        pytest.param({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}, {}, {}, ("0/1", "Completed"),
                     id="done"),
        pytest.param({"phase": "Running", "containerStatuses": [running()]}, {},
                     {"deletionTimestamp": "2026-01-01T11:59:00Z"}, ("1/1", "Terminating"), id="being deleted"),
        pytest.param({"phase": "Failed", "reason": "Evicted"}, {}, {}, ("0/1", "Evicted"), id="evicted"),
        pytest.param({"phase": "Pending", "initContainerStatuses": [ended(0), waiting("PodInitializing")]},
                     {"initContainers": [{"name": "a"}, {"name": "b"}]}, {}, ("0/1", "Init:1/2"), id="initializing"),
        pytest.param({"phase": "Pending", "initContainerStatuses": [ended(2)]}, {"initContainers": [{"name": "a"}]}, {},
                     ("0/1", "Init:ExitCode:2"), id="failed to initialize"),
        pytest.param({"phase": "Running", "initContainerStatuses": [running(name="s", started=True)],
                      "containerStatuses": [running()]}, {"initContainers": [{"name": "s", "restartPolicy": "Always"}]},
                     {}, ("2/2", "Running"), id="with a sidecar"),
    ],
)  # fmt: skip
def test_the_status_of_a_pod(status: JSON, spec: JSON, metadata: JSON, expected: tuple[str, str]) -> None:
    body = {"spec": {"containers": [{"name": "c"}], **spec}, "status": status, "metadata": metadata}
    assert tuple(row(POD, **body)[1:3]) == expected


def test_restarts_say_when_the_last_was() -> None:
    last = {"terminated": {"finishedAt": "2026-01-01T11:55:00Z"}}
    status = {"phase": "Running", "containerStatuses": [running(restartCount=3, lastState=last)]}
    assert row(POD, spec={"containers": [{"name": "c"}]}, status=status)[3] == "3 (5m ago)"


def test_a_wide_pod_shows_where_it_is() -> None:
    spec = {"containers": [{"name": "c"}], "nodeName": "node1", "readinessGates": [{"conditionType": "lb"}]}
    status = {"podIPs": [{"ip": "10.244.0.2"}], "conditions": [{"type": "lb", "status": "True"}]}
    assert row(POD, wide=True, spec=spec, status=status)[5:] == ["10.244.0.2", "node1", "<none>", "1/1"]
    assert row(POD, wide=True)[5:] == ["<none>"] * 4


# ── services ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        pytest.param({"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "TCP"}]}, {},
                     ["ClusterIP", "10.96.0.1", "<none>", "80/TCP"], id="cluster IP"),
        pytest.param({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 30080},
                      {"port": 53, "protocol": "UDP"}]}, {},
                     ["NodePort", "10.96.0.1", "<none>", "80:30080/TCP,53/UDP"], id="node port"),
        pytest.param({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": []}, {},
                     ["LoadBalancer", "10.96.0.1", "<pending>", "<none>"], id="waiting for a load balancer"),
        pytest.param({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.9"]},
                     {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "a.example"}]}},
                     ["LoadBalancer", "10.96.0.1", "192.0.2.1,a.example,192.0.2.9", "<none>"], id="load balancer"),
        pytest.param({"type": "ExternalName", "externalName": "example.com"}, {},
                     ["ExternalName", "<none>", "example.com", "<none>"], id="external name"),
        pytest.param({"type": "ClusterIP", "clusterIP": "None"}, {}, ["ClusterIP", "None", "<none>", "<none>"],
                     id="headless"),
    ],
)  # fmt: skip
def test_a_service(spec: JSON, status: JSON, cells: list[str]) -> None:
    assert row(SERVICE, spec=spec, status=status) == ["web", *cells, "2m"]


def test_a_wide_service_shows_its_selector() -> None:
    assert row(SERVICE, wide=True, spec={"selector": {"b": "2", "a": "1"}})[-1] == "a=1,b=2"


# ── others ───────────────────────────────────────────────────────────────────────────────────────────────────────────

SLICE = {
    "addressType": "IPv4",
    "ports": [{"port": 80}, {"name": "any"}],
    "endpoints": [{"addresses": [f"10.244.0.{n}"]} for n in range(2, 7)],
}
SUBSETS = [{"addresses": [{"ip": "10.244.0.2"}, {"ip": "fd00::2"}], "ports": [{"port": 80}, {"port": 81}]}]
NODE_BODY = {
    "metadata": {"labels": {"node-role.kubernetes.io/worker": ""}},
    "spec": {"unschedulable": True},
    "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}},
}
JOB_STATUS = {
    "succeeded": 1,
    "startTime": "2026-01-01T11:58:00Z",
    "completionTime": "2026-01-01T11:59:00Z",
    "conditions": [{"type": "Complete", "status": "True"}],
}


@pytest.mark.parametrize(
    ("kind", "body", "cells"),
    [
        pytest.param(ENDPOINT_SLICE, SLICE, ["IPv4", "80,*", "10.244.0.2,10.244.0.3,10.244.0.4 + 2 more...", "2m"],
                     id="EndpointSlice"),
        pytest.param(ENDPOINT_SLICE, {"addressType": "IPv6"}, ["IPv6", "<unset>", "<unset>", "2m"], id="empty slice"),
        pytest.param(ENDPOINTS, {"subsets": SUBSETS}, ["10.244.0.2:80,[fd00::2]:80,10.244.0.2:81 + 1 more...", "2m"],
                     id="Endpoints"),
        pytest.param(ENDPOINTS, {}, ["<none>", "2m"], id="empty Endpoints"),
        pytest.param(NODE, NODE_BODY, ["Ready,SchedulingDisabled", "worker", "2m", "v1"], id="Node"),
        pytest.param(NODE, {}, ["Unknown", "<none>", "2m", ""], id="unknown Node"),
        pytest.param(DEPLOYMENT, {"spec": {"replicas": 3}, "status": {"readyReplicas": 2, "updatedReplicas": 3,
                     "availableReplicas": 2}}, ["2/3", 3, 2, "2m"], id="Deployment"),
        pytest.param(JOB, {"spec": {"completions": 1}, "status": JOB_STATUS}, ["Complete", "1/1", "60s", "2m"],
                     id="Job"),
        pytest.param(JOB, {"spec": {"parallelism": 3}}, ["Running", "0/1 of 3", "", "2m"], id="a work queue"),
        *(pytest.param(JOB, {"spec": {"completions": 2}, "status": {"conditions": [{"type": state, "status": "True"}]}},
                       [state, "0/2", "", "2m"], id=state) for state in ("SuccessCriteriaMet", "FailureTarget")),
        pytest.param(JOB, {"metadata": {"deletionTimestamp": "2026-01-01T11:59:00Z"}, "spec": {"completions": 2},
                     "status": {"conditions": [{"type": "Suspended", "status": "True"}]}},
                     ["Terminating", "0/2", "", "2m"], id="a Job that goes"),
        pytest.param(NAMESPACE, {"status": {"phase": "Active"}}, ["Active", "2m"], id="Namespace"),
        pytest.param(SECRET, {"type": "Opaque", "data": {"a": "eA=="}}, ["Opaque", 1, "2m"], id="Secret"),
        pytest.param(LEASE, {"spec": {"holderIdentity": "me"}}, ["me", "2m"], id="Lease"),
        pytest.param(SERVICE_CIDR, {"spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}},
                     ["10.96.0.0/16,fd00::/112", "2m"],
                     id="ServiceCIDR"),
        pytest.param(IP_ADDRESS, {"spec": {"parentRef": {"resource": "services", "namespace": "a", "name": "b"}}},
                     ["services/a/b", "2m"], id="IPAddress"),
    ],
)  # fmt: skip
def test_other_kinds(kind: Kind, body: JSON, cells: list[Any]) -> None:
    assert row(kind, **body)[1:] == cells


def test_a_wide_deployment_shows_its_images_and_selector() -> None:
    template = {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}}
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "t", "operator": "In", "values": ["2", "1"]}],
    }
    spec = {"template": template, "selector": selector}
    assert row(DEPLOYMENT, wide=True, spec=spec)[-3:] == ["a,b", "x,y", "app=web,t in (1,2)"]


def test_an_event_is_about_its_object() -> None:
    body = {
        "lastTimestamp": "2026-01-01T11:59:30Z",
        "type": "Normal",
        "reason": "Started",
        "message": "Started it\n",
        "involvedObject": {"kind": "Pod", "name": "p"},
    }
    assert row(EVENT, **body) == ["30s", "Normal", "Started", "pod/p", "Started it"]
