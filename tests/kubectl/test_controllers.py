"""Real kubectl against the API server with the controllers and a stand-in agent: what a Deployment's user types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.apiserver import ServerThread
from support.box import eventually
from support.controlled import controlled_server
from support.kubectl import Kubectl

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: host
        command: [sleep, infinity]
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports:
  - port: 80
    targetPort: 8080
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with controlled_server(tmp_path_factory.mktemp("controllers")) as thread:
        yield thread


@pytest.fixture
def kubectl(kubectl: Kubectl) -> Kubectl:
    """With the Deployment and its Service rolled out."""
    kubectl("apply", "-f", "-", stdin=WEB)
    rolled = kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert 'deployment "web" successfully rolled out' in rolled
    return kubectl


def test_a_rollout_its_history_and_its_undoing(kubectl: Kubectl) -> None:
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
    kubectl("set", "env", "deployment/web", "VERSION=2")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert [line.split()[0] for line in kubectl("rollout", "history", "deployment/web").split("\n")[2:4]] == ["1", "2"]
    assert "VERSION" in kubectl("get", "deployment", "web", "-o", "yaml")
    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert "VERSION" not in kubectl("get", "deployment", "web", "-o", "yaml")
    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert (
        kubectl.json("get", "deployment", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "4"
    )


def test_pause_and_resume(kubectl: Kubectl) -> None:
    kubectl("rollout", "pause", "deployment/web")
    kubectl("set", "env", "deployment/web", "VERSION=2")
    kubectl("rollout", "resume", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    newest = [s for s in kubectl.json("get", "replicasets")["items"] if s["spec"]["replicas"]]
    assert [s["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for s in newest] == ["2"]


def test_describe_shows_what_happened(kubectl: Kubectl) -> None:
    shown = kubectl("describe", "deployment", "web")
    assert "3 desired | 3 updated | 3 total | 3 available | 0 unavailable" in shown
    assert "NewReplicaSet:   web-" in shown
    assert "(3/3 replicas created)" in shown
    eventually(lambda: "Scaled up replica set web-" in kubectl("describe", "deployment", "web"), what="its event")
    ready = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}"
    eventually(lambda: len(kubectl("get", "endpointslices", "-o", ready).split()) == 3, what="three in its slice")
    old = "jsonpath={.subsets[0].addresses[*].ip}"  # which older kubectls describe
    eventually(lambda: len(kubectl("get", "endpoints", "web", "-o", old).split()) == 3, what="three in its Endpoints")
    endpoints = next(line for line in kubectl("describe", "service", "web").splitlines() if "Endpoints:" in line)
    assert endpoints.count(":8080") == 3


def test_scale_and_delete(kubectl: Kubectl) -> None:
    kubectl("scale", "deployment/web", "--replicas=5")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert len(kubectl.json("get", "pods")["items"]) == 5
    kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=60s")
    assert kubectl.json("get", "pods,replicasets")["items"] == []
    kubectl("delete", "namespace", kubectl.namespace, "--timeout=60s")


def test_orphans_stay_and_the_rest_goes_in_the_background(kubectl: Kubectl) -> None:
    kubectl("delete", "deployment", "web", "--cascade=orphan", "--timeout=60s")
    (left,) = kubectl.json("get", "replicasets")["items"]
    assert "ownerReferences" not in left["metadata"]
    assert len(kubectl.json("get", "pods")["items"]) == 3
    kubectl("delete", "replicaset", left["metadata"]["name"], "--cascade=background")
    kubectl("wait", "--for=delete", "pods", "--all", "--timeout=60s")
    assert kubectl.json("get", "pods")["items"] == []
