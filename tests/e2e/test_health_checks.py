"""What load balancers hear of a real box: a Service's health-check node port on every node, and each node's health."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from kubesvc.box.definition import PROXY_HEALTH_PORT
from support.box import BoxUnderTest, eventually, fresh_box


class World:
    """Three nodes, and pods of Service `web` on the first two."""

    def __init__(self, box: BoxUnderTest) -> None:
        self.box = box
        nodes = box.get("nodes")["items"]
        self.nodes = {node["metadata"]["name"]: node["status"]["addresses"][0]["address"] for node in nodes}
        self.port = box.get("service", "web")["spec"]["healthCheckNodePort"]

    def check(self, node: str) -> tuple[int, str, dict]:
        """Status, weight and body of the Service's health check on a node."""
        status, headers, body = fetch(f"http://{self.nodes[node]}:{self.port}/whatever")
        return status, headers["X-Load-Balancing-Endpoint-Weight"], json.loads(body)

    def checks(self) -> dict[str, int]:
        return {node: self.check(node)[0] for node in self.nodes}

    def health(self, node: str, path: str) -> int:
        return fetch(f"http://{self.nodes[node]}:{PROXY_HEALTH_PORT}/{path}")[0]


def fetch(url: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def pod(name: str, node: str) -> dict:
    container = {"name": "c", "image": "host", "command": ["sleep", "1000000"]}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}


def service() -> dict:
    spec = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh_box(tmp_path_factory.mktemp("health") / "box") as box:
        box.up("--nodes", "3")
        items = [service(), *(pod(f"web-{n}", f"node{n}") for n in (1, 2)), pod("web-1b", "node1")]
        box.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        box.kubectl("wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s")
        yield World(box)


def test_nodes_with_endpoints_say_yes_and_others_no(world: World) -> None:
    """200 with the number of its endpoints on a node that has some, 503 elsewhere; it follows the pods."""
    eventually(lambda: world.checks() == {"node1": 200, "node2": 200, "node3": 503}, what="each node answers")
    eventually(lambda: world.check("node1")[1] == "2", what="both of node1 are counted")
    body = {"service": {"namespace": "default", "name": "web"}, "localEndpoints": 0, "serviceProxyHealthy": True}
    assert world.check("node3") == (503, "0", body)
    assert world.check("node2") == (200, "1", body | {"localEndpoints": 1})
    world.box.kubectl("delete", "pod", "web-2")
    eventually(lambda: world.checks() == {"node1": 200, "node2": 503, "node3": 503}, what="node2 has none any more")
    items = {"apiVersion": "v1", "kind": "List", "items": [pod("web-3", "node3")]}
    world.box.kubectl("apply", "-f", "-", input=json.dumps(items))
    eventually(lambda: world.checks() == {"node1": 200, "node2": 503, "node3": 200}, what="node3 has one")


def test_a_node_that_is_to_go_says_so(world: World) -> None:
    """/healthz is 503 while the cluster autoscaler is taking the node away and while its Node is being deleted; /livez
    stays 200, since nothing is wrong with the proxy; other taints change nothing."""

    def says(node: str) -> tuple[int, int]:
        return world.health(node, "healthz"), world.health(node, "livez")

    assert {says(node) for node in world.nodes} == {(200, 200)}
    taint = "ToBeDeletedByClusterAutoscaler=1700000000:PreferNoSchedule"
    world.box.kubectl("taint", "node", "node3", "other=1:PreferNoSchedule")
    world.box.kubectl("taint", "node", "node2", taint)
    eventually(lambda: says("node2") == (503, 200), what="tainted")
    assert says("node3") == says("node1") == (200, 200)
    world.box.kubectl("taint", "node", "node2", f"{taint}-")
    eventually(lambda: says("node2") == (200, 200), what="no longer tainted")
    hold = json.dumps({"metadata": {"finalizers": ["example.com/hold"]}})
    world.box.kubectl("patch", "node", "node3", "--type=merge", "-p", hold)
    world.box.kubectl("delete", "node", "node3", "--wait=false")
    eventually(lambda: says("node3") == (503, 200), what="being deleted")
    world.box.kubectl("patch", "node", "node3", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": []}}))
