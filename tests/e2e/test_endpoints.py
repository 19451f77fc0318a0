"""Endpoints of a real box: hand-written ones are reachable, and those of a lost node leave."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.box import BoxUnderTest, eventually, fresh_box

GRACE = 4  # seconds of silence after which a node of this box counts as lost


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """Two nodes that are given up quickly; a server on each, and a client on the first."""
    with fresh_box(tmp_path_factory.mktemp("endpoints") / "box") as made:
        made.up("--nodes", "2", "--node-grace", str(GRACE))
        servers = [pod(f"server{n}", f"node{n}", ["python3", "-m", "http.server", "8080"]) for n in (1, 2)]
        ports = [{"port": 80, "targetPort": 8080}]
        web = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
        client = pod("client", "node1", ["sleep", "1000000"], app="client")
        items = [*servers, client, {"apiVersion": "v1", "kind": "Service", **web}]
        made.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        made.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
        yield made


def pod(name: str, node: str, command: list[str], app: str = "web") -> dict:
    container = {"name": "c", "image": "host", "command": command}
    if app == "web":
        container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}}, "spec": spec}


def ask(box: BoxUnderTest, name: str) -> str:
    """What the client pod gets from http://NAME/, as a status."""
    program = f"import urllib.request as u; print(u.urlopen('http://{name}/', timeout=5).status)"
    return box.kubectl("exec", "client", "--", "python3", "-c", program, check=False).strip()


def ready(box: BoxUnderTest, service: str, namespace: str = "default") -> dict[str, bool]:
    """A Service's endpoints: node -> ready."""
    items = box.get("endpointslices", "-n", namespace, "-l", f"kubernetes.io/service-name={service}")["items"]
    return {e["nodeName"]: e["conditions"]["ready"] for s in items for e in s["endpoints"]}


def node_ready(box: BoxUnderTest, node: str) -> tuple[str, str]:
    conditions = box.get("node", node)["status"]["conditions"]
    return next((c["status"], c["reason"]) for c in conditions if c["type"] == "Ready")


@contextmanager
def stopped(box: BoxUnderTest, name: str) -> Iterator[None]:
    """A process of the box that does nothing meanwhile, without having ended."""
    pid = box.pids()[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_hand_written_endpoints_are_reachable_from_a_pod(box: BoxUnderTest) -> None:
    """A Service without a selector, an Endpoints object with a pod's address: mirrored, programmed, answered."""
    address = box.get("pod", "server2")["status"]["podIP"]
    by_hand = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "byhand"}, "spec": {"ports": [{"port": 80}]}},
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "byhand"},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 8080}]}],
        },
    ]
    box.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": by_hand}))
    eventually(lambda: ask(box, "byhand") == "200", what="an answer through hand-written Endpoints")
    box.kubectl("delete", "endpoints", "byhand")
    eventually(lambda: "refused" in ask(box, "byhand"), what="a refusal once they are deleted")


def test_a_node_whose_agent_is_stopped_loses_its_endpoints_until_it_goes_on(box: BoxUnderTest) -> None:
    """SIGSTOP: Unknown, its pods and its DNS leave, the rest answers. SIGCONT: all as before."""
    eventually(lambda: ready(box, "web") == {"node1": True, "node2": True}, what="both endpoints")
    with stopped(box, "node2/node"):
        eventually(lambda: ready(box, "web") == {"node1": True, "node2": False}, what="node2's endpoint not ready")
        assert node_ready(box, "node2") == ("Unknown", "NodeStatusUnknown")
        eventually(
            lambda: ready(box, "kube-dns", "kube-system") == {"node1": True, "node2": False},
            what="node2's DNS not ready",
        )
        assert [ask(box, "web") for _ in range(4)] == ["200"] * 4
    eventually(lambda: node_ready(box, "node2")[0] == "True", what="node2 back")
    eventually(lambda: ready(box, "web") == {"node1": True, "node2": True}, what="both endpoints again")
    eventually(lambda: all(ready(box, "kube-dns", "kube-system").values()), what="both DNS servers again")


def test_what_ran_on_a_deleted_node_goes_with_it(box: BoxUnderTest) -> None:
    """Its agent is dead and its Node deleted: no pod stays Terminating, its namespace finishes, its DNS slice goes."""
    box.kubectl("create", "namespace", "doomed")
    left = pod("left", "node2", ["sleep", "1000000"], app="left")
    box.kubectl("apply", "-n", "doomed", "-f", "-", input=json.dumps(left))
    box.kubectl("wait", "-n", "doomed", "pod/left", "--for=condition=Ready", "--timeout=60s")
    with stopped(box, "node2/node"):
        box.kubectl("delete", "namespace", "doomed", "--wait=false")
        box.kubectl("delete", "node", "node2")
        eventually(lambda: "NotFound" in box.kubectl("get", "namespace", "doomed", check=False), what="doomed gone")
        eventually(lambda: set(ready(box, "kube-dns", "kube-system")) == {"node1"}, what="its DNS gone")
        eventually(lambda: set(ready(box, "web")) == {"node1"}, what="its endpoint gone")
