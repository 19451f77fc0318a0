"""Nodes that come, go, fall silent, are drained, and come back."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.box import BoxUnderTest, eventually, fresh_box, own_network

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 3}
      containers:
      - name: web
        image: host
        command: [python3, -S, -m, http.server, "8080"]
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
"""


@pytest.fixture
def box(tmp_path):
    with fresh_box(tmp_path / "box") as fresh:
        yield fresh


def where(box: BoxUnderTest) -> dict[str, str]:
    """Each ready pod -> its node."""
    found = {}
    for pod in box.get("pods", "-l", "app=web")["items"]:
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        if ready and "deletionTimestamp" not in pod["metadata"]:
            found[pod["metadata"]["name"]] = pod["spec"]["nodeName"]
    return found


def addresses(box: BoxUnderTest) -> dict[str, str]:
    """Each pod's address -> its node."""
    pods = box.get("pods", "-l", "app=web")["items"]
    return {p["status"].get("podIP", p["metadata"]["name"]): p["spec"].get("nodeName", "") for p in pods}


def programmed(box: BoxUnderTest, node: str) -> str:
    return box.inside(node, "nft", "list", "table", "inet", "kubesvc")


def test_a_node_is_added_used_and_removed_while_the_box_runs(box):
    """It has its zone and labels, takes pods, reaches Services, is there after a restart, and leaves nothing."""
    box.up("--nodes", "1", *own_network())
    added = box.kubesvc("node", "add", "east1", "--zone", "east", "--label", "disk=ssd")
    assert added.stdout == "node/east1 added\n"
    labels = box.get("node", "east1")["metadata"]["labels"]
    assert (labels["topology.kubernetes.io/zone"], labels["disk"]) == ("east", "ssd")
    box.kubectl("apply", "-f", "-", input=WEB)
    box.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert set(where(box).values()) == {"node1", "east1"}
    fetch = "import urllib.request as r; print(r.urlopen('http://web/', timeout=5).status)"
    for pod in where(box):
        eventually(lambda pod=pod: box.kubectl("exec", pod, "--", "python3", "-c", fetch) == "200\n", what=pod)

    for words, says in (
        (("add", "east1"), "is part of box"),
        (("add", "No_Name"), "expected up to 15 lower-case letters and digits"),
        (("add", "net"), "expected up to 15"),
        (("add", "x", "--label", "broken"), "expected KEY=VALUE"),
        (("add", "x", "--label", "node-restriction.kubernetes.io/a=b"), "use `kubectl label node`"),
        (("remove", "west"), "its nodes are node1, east1"),
    ):
        refused = box.kubesvc("node", *words, check=False)
        assert (refused.returncode, says in refused.stderr) == (1, True), refused.stderr

    box.interrupt()
    box.up()
    box.kubectl("wait", "--for=condition=Ready", "node/east1", "--timeout=60s")
    os.kill(box.pids()["control-plane"], signal.SIGKILL)  # the one that follows knows the node too
    eventually(lambda: "east1" in box.kubectl("get", "nodes", "-o", "name"), what="the API back")
    box.kubectl("wait", "--for=condition=Ready", "node/east1", "--timeout=60s")

    assert box.kubesvc("node", "remove", "east1").stdout.startswith("node/east1 removed")
    eventually(lambda: list(where(box).values()) == ["node1"] * 4, what="all pods on node1")
    assert not Path("/run/netns", box.namespace("east1")).exists()
    assert not (Path("/run/kubesvc") / box.name / "east1").exists()
    assert [n["metadata"]["name"] for n in box.get("nodes")["items"]] == ["node1"]
    last = box.kubesvc("node", "remove", "node1", check=False)
    assert "is the last of box" in last.stderr


def test_a_silent_node_is_left_and_one_that_comes_back_has_its_pods_again(box):
    box.up("--nodes", "2", "--node-grace", "4")
    box.kubectl("apply", "-f", "-", input=WEB)
    box.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    lost = [address for address, node in addresses(box).items() if node == "node2"]
    assert len(lost) == 2
    eventually(lambda: all(f"{address} " in programmed(box, "node1") for address in lost), what="endpoints on node1")
    agent = box.pids()["node2/node"]
    os.kill(agent, signal.SIGSTOP)
    try:
        box.kubectl("wait", "--for=condition=Ready=Unknown", "node/node2", "--timeout=60s")
        eventually(lambda: not any(f"{a} " in programmed(box, "node1") for a in lost), 60, "endpoints gone from node1")
        eventually(lambda: list(where(box).values()) == ["node1"] * 4, what="evicted and replaced")
    finally:
        os.kill(agent, signal.SIGCONT)
    box.kubectl("wait", "--for=condition=Ready", "node/node2", "--timeout=60s")
    eventually(lambda: len(addresses(box)) == 4, what="what was evicted is gone")


def test_a_short_silence_restarts_nothing(box):
    """Not ready, out of every map, ready again: the same containers."""
    box.up("--nodes", "2", "--node-grace", "4")
    box.kubectl("apply", "-f", "-", input=WEB.replace("tolerationSeconds: 3", "tolerationSeconds: 300"))
    box.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    before = where(box)
    agent = box.pids()["node2/node"]
    os.kill(agent, signal.SIGSTOP)
    try:
        box.kubectl("wait", "--for=condition=Ready=Unknown", "node/node2", "--timeout=60s")
        eventually(lambda: set(where(box).values()) == {"node1"}, what="the silent node's pods not ready")
    finally:
        os.kill(agent, signal.SIGCONT)
    eventually(lambda: where(box) == before, what="the same pods ready")
    pods = box.get("pods", "-l", "app=web")["items"]
    assert [s["restartCount"] for p in pods for s in p["status"]["containerStatuses"]] == [0] * 4


def test_a_drained_node_is_empty_until_uncordoned(box):
    box.up("--nodes", "2")
    box.kubectl("apply", "-f", "-", input=WEB)
    box.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    box.kubectl("create", "pdb", "web", "--selector=app=web", "--min-available=100%")
    held = box.kubectl("drain", "node2", "--ignore-daemonsets", "--timeout=1s", check=False)
    assert "Cannot evict pod as it would violate the pod's disruption budget." in held
    assert "node/node2 drained" not in held
    box.kubectl("delete", "pdb", "web")
    assert "node/node2 drained" in box.kubectl("drain", "node2", "--ignore-daemonsets", "--timeout=60s")
    eventually(lambda: list(where(box).values()) == ["node1"] * 4, what="all on node1")
    assert "SchedulingDisabled" in box.kubectl("get", "node", "node2")
    box.kubectl("uncordon", "node2")
    box.kubectl("scale", "deployment/web", "--replicas=6")
    eventually(lambda: "node2" in where(box).values(), what="node2 takes pods again")


def test_a_box_that_does_not_run_says_so(box):
    box.up()
    box.interrupt()
    refused = box.kubesvc("node", "add", "more", check=False)
    assert (refused.returncode, "is it running?" in refused.stderr) == (1, True)
    assert subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout.count(box.name) == 0
