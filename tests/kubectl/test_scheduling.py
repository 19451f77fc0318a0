"""Where pods go on a real box, and what its owner reads when they go nowhere."""

from __future__ import annotations

import json

import pytest

from support.box import eventually

SPREAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: spread}
spec:
  replicas: 3
  selector: {matchLabels: {app: spread}}
  template:
    metadata: {labels: {app: spread}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: spread}}}
      containers:
      - {name: main, image: host, command: [sleep, "1000"]}
"""


@pytest.fixture
def kubectl(three_nodes, namespace):
    def run(*words: str, **options):
        return three_nodes.kubectl("-n", namespace, *words, **options)

    return run


def pod(name: str, **spec) -> str:
    container = {"name": "main", "image": "host", "command": ["sleep", "1000"], **spec.pop("container", {})}
    whole = {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole})


def test_replicas_that_repel_each_other_have_a_node_each_and_the_fourth_none(kubectl):
    kubectl("apply", "-f", "-", input=SPREAD)
    kubectl("rollout", "status", "deployment/spread", "--timeout=60s")
    placed = kubectl("get", "pods", "-l", "app=spread", "-o", "jsonpath={.items[*].spec.nodeName}").split()
    assert len(set(placed)) == 3
    kubectl("scale", "deployment/spread", "--replicas=4")
    told = "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."
    eventually(lambda: told in kubectl("events"), what=told)
    kubectl("delete", "deployment", "spread")


def test_a_taint_that_does_not_bear_pods_drives_them_away_and_no_tolerant_one(kubectl, three_nodes):
    here = {"nodeSelector": {"kubernetes.io/hostname": "node3"}}
    kubectl("apply", "-f", "-", input=pod("goes", **here))
    kubectl("apply", "-f", "-", input=pod("stays", tolerations=[{"key": "test", "operator": "Exists"}], **here))
    kubectl("wait", "--for=condition=Ready", "pod/goes", "pod/stays", "--timeout=60s")
    three_nodes.kubectl("taint", "node", "node3", "test=yes:NoExecute")
    try:
        kubectl("wait", "--for=delete", "pod/goes", "--timeout=60s")
        assert kubectl("get", "pod", "stays", "--no-headers").split()[2] == "Running"
    finally:
        three_nodes.kubectl("taint", "node", "node3", "test-")


def test_a_gated_pod_goes_nowhere_until_its_last_gate_is_taken_away(kubectl):
    kubectl("apply", "-f", "-", input=pod("gated", schedulingGates=[{"name": "example.com/wait"}]))
    kubectl("apply", "-f", "-", input=pod("later"))
    kubectl("wait", "--for=condition=Ready", "pod/later", "--timeout=60s")
    assert kubectl("get", "pod", "gated", "--no-headers").split()[2] == "SchedulingGated"
    kubectl("patch", "pod", "gated", "--type=json", "-p", '[{"op": "remove", "path": "/spec/schedulingGates"}]')
    kubectl("wait", "--for=condition=Ready", "pod/gated", "--timeout=60s")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, "3 node(s) didn't match Pod's node affinity/selector."),
        ({"container": {"resources": {"requests": {"cpu": "1000"}}}}, "3 Insufficient cpu."),
    ],
    ids=["a label no node has", "more than any node has"],
)
def test_what_fits_nowhere_says_why_and_runs_when_it_does_not_matter_any_more(kubectl, three_nodes, spec, told):
    kubectl("apply", "-f", "-", input=pod("stuck", **spec))
    eventually(lambda: f"0/3 nodes are available: {told}" in kubectl("describe", "pod", "stuck"), what=told)
    if "nodeSelector" in spec:
        three_nodes.kubectl("label", "node", "node2", "disk=ssd")
        try:
            kubectl("wait", "--for=condition=Ready", "pod/stuck", "--timeout=60s")
            assert kubectl("get", "pod", "stuck", "-o", "jsonpath={.spec.nodeName}") == "node2"
        finally:
            three_nodes.kubectl("label", "node", "node2", "disk-")


def test_a_host_port_is_had_once_a_node_and_answers(kubectl, three_nodes):
    """Three nodes take three; the fourth is told; from a pod, each answers at its node's address."""
    server = {
        "command": ["python3", "-m", "http.server", "8000"],
        "ports": [{"containerPort": 8000, "hostPort": 18080}],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
    }
    for number in range(3):
        kubectl("apply", "-f", "-", input=pod(f"server-{number}", container=server))
    kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    kubectl("apply", "-f", "-", input=pod("one-too-many", container=server))
    told = "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports."
    eventually(lambda: told in kubectl("describe", "pod", "one-too-many"), what=told)
    for number in range(3):
        address = kubectl("get", "pod", f"server-{(number + 1) % 3}", "-o", "jsonpath={.status.hostIP}")
        fetch = f"import urllib.request as u; print(u.urlopen('http://{address}:18080/etc/hostname').read().decode())"
        found = kubectl("exec", f"server-{number}", "--", "python3", "-c", fetch)
        assert found.strip() == f"server-{(number + 1) % 3}"
    kubectl("delete", "pod", "server-0", "--wait=false")
    kubectl("wait", "--for=condition=Ready", "pod/one-too-many", "--timeout=60s")


LATE = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: late}
provisioner: kubesvc/directory
volumeBindingMode: WaitForFirstConsumer
"""


def test_a_pod_waits_for_its_claims_which_stay_as_long_as_it_does(kubectl, three_nodes):
    """One whose volume is made where the pod goes, and one of its own, which goes with it."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": wanted}}},
    ]
    mounts = {"volumeMounts": [{"name": v["name"], "mountPath": f"/mnt/{v['name']}"} for v in volumes]}
    here = {"nodeSelector": {"kubernetes.io/hostname": "node3"}}
    three_nodes.kubectl("apply", "-f", "-", input=LATE)
    try:
        kubectl("apply", "-f", "-", input=pod("writer", container=mounts, volumes=volumes, **here))
        told = '0/3 nodes are available: persistentvolumeclaim "data" not found.'
        eventually(lambda: told in kubectl("describe", "pod", "writer"), what=told)
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}}
        claim["spec"] = wanted | {"storageClassName": "late"}
        kubectl("apply", "-f", "-", input=json.dumps(claim))
        kubectl("wait", "--for=condition=Ready", "pod/writer", "--timeout=60s")
        selected = "{.metadata.annotations.volume\\.kubernetes\\.io/selected-node}"
        assert kubectl("get", "pvc", "data", "-o", f"jsonpath={selected}") == "node3"
        kubectl("exec", "writer", "--", "sh", "-c", "echo kept > /mnt/data/file; echo lost > /mnt/scratch/file")
        kubectl("delete", "pvc", "data", "--wait=false")
        assert kubectl("get", "pvc", "data", "--no-headers").split()[1] == "Terminating"
        assert kubectl("exec", "writer", "--", "cat", "/mnt/data/file") == "kept\n"
        kubectl("delete", "pod", "writer", "--wait=false")
        kubectl("wait", "--for=delete", "pvc/data", "pvc/writer-scratch", "--timeout=60s")
    finally:
        three_nodes.kubectl("delete", "storageclass", "late")
