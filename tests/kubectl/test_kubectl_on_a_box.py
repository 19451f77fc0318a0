"""kubectl, the newest and the machine's own, against a real box: what people type every day works."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.box import eventually, kubectls

HELLO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: host
        command: [python3, -u, -m, http.server, "8080"]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: http, port: 80, targetPort: http}]
"""


@pytest.fixture(params=kubectls(), ids=["newest", "machine's"][: len(kubectls())])
def kubectl(request, three_nodes, namespace):
    """Run one of the kubectls in a namespace of its own."""

    def run(*words: str, **options):
        return three_nodes.kubectl("-n", namespace, *words, program=request.param, **options)

    return run


def test_a_deployment_from_apply_to_delete(kubectl):
    """apply, rollout status, get in its forms, scale, restart, undo, describe, delete."""
    assert "deployment.apps/hello created" in kubectl("apply", "-f", "-", input=HELLO)
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/hello", "--timeout=60s")
    assert "unchanged" in kubectl("apply", "-f", "-", input=HELLO)
    table = kubectl("get", "deployment", "hello")
    assert table.split()[:5] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert "2/2" in table
    pods = kubectl("get", "pods", "-l", "app=hello", "-o", "wide")
    assert pods.count("Running") == 2
    assert "10.244." in pods
    assert "node" in pods
    assert kubectl("get", "pods", "-o", "name").count("pod/hello-") == 2
    eventually(lambda: "hello" in kubectl("get", "endpoints", "hello"))
    eventually(lambda: "hello" in kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=hello"))

    kubectl("scale", "deployment/hello", "--replicas=3")
    kubectl("rollout", "status", "deployment/hello", "--timeout=60s")
    assert "3/3" in kubectl("get", "deploy", "hello")
    kubectl("rollout", "restart", "deployment/hello")
    kubectl("rollout", "status", "deployment/hello", "--timeout=60s")
    assert len(kubectl("get", "rs", "-o", "name").split()) == 2
    kubectl("rollout", "undo", "deployment/hello")
    kubectl("rollout", "status", "deployment/hello", "--timeout=60s")

    assert "Endpoints:" in kubectl("describe", "service", "hello")
    eventually(lambda: ":8080" in kubectl("describe", "service", "hello"))
    newest = kubectl("get", "pods", "-l", "app=hello", "--sort-by=.metadata.creationTimestamp", "-o", "name").split()[
        -1
    ]
    assert "Ready" in kubectl("describe", newest)
    assert "ScalingReplicaSet" in kubectl("describe", "deployment", "hello")

    kubectl("delete", "deployment", "hello", "--wait=true")
    eventually(lambda: "hello-" not in kubectl("get", "pods"), what="pods went with their deployment")


def test_run_logs_exec_and_wait(kubectl):
    """A single pod: its output, a command in it with its exit code, files in and out by stdin."""
    kubectl("run", "one", "--image=host", "--command", "--", "sh", "-c", "echo from the pod; exec sleep 100000")
    kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
    eventually(lambda: kubectl("logs", "one") == "from the pod\n")
    assert kubectl("logs", "one", "--tail=1", "--timestamps").endswith("from the pod\n")
    assert kubectl("exec", "one", "--", "hostname") == "one\n"
    assert kubectl("exec", "-i", "one", "--", "cat", input="through stdin") == "through stdin"
    assert "command terminated with exit code 3" in kubectl("exec", "one", "--", "sh", "-c", "exit 3", check=False)
    assert "shadow" not in kubectl("exec", "one", "--", "ls", "/etc")
    assert "Read-only" in kubectl("exec", "one", "--", "touch", "/usr/x", check=False)
    kubectl("delete", "pod", "one", "--grace-period=1")
    assert "not found" in kubectl("get", "pod", "one", check=False)


def test_expose_edit_patch_and_labels(kubectl):
    """Changing what is there, in the ways people do."""
    kubectl("apply", "-f", "-", input=HELLO)
    assert "exposed" in kubectl("expose", "deployment", "hello", "--name=again", "--port=81", "--type=NodePort")
    node_port = int(kubectl("get", "service", "again", "-o", "jsonpath={.spec.ports[0].nodePort}"))
    assert 30000 <= node_port <= 32767
    kubectl("patch", "service", "again", "-p", '{"spec":{"ports":[{"port":81,"name":"x"}]}}')
    kubectl(
        "patch", "service", "again", "--type=json", "-p", '[{"op":"replace","path":"/spec/ports/0/port","value":82}]'
    )
    kubectl("patch", "service", "again", "--type=merge", "-p", '{"metadata":{"labels":{"a":"b"}}}')
    assert kubectl("get", "service", "-l", "a=b", "-o", "jsonpath={.items[0].spec.ports[0].port}") == "82"
    assert int(kubectl("get", "service", "again", "-o", "jsonpath={.spec.ports[0].nodePort}")) == node_port
    kubectl("label", "service", "again", "a-")
    kubectl("annotate", "service", "again", "note=here")
    assert "again" not in kubectl("get", "service", "-l", "a=b", "-o", "name")


def test_a_refusal_says_what_upstream_says(kubectl):
    """The texts people search the web for."""
    bad = '{"apiVersion":"v1","kind":"Service","metadata":{"name":"bad"},"spec":{"ports":[]}}'
    assert 'The Service "bad" is invalid: spec.ports: Required value' in kubectl(
        "create", "-f", "-", input=bad, check=False
    )
    assert 'pods "nobody" not found' in kubectl("get", "pod", "nobody", check=False)
    unknown = '{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"},"spec":{"prots":[]}}'
    assert 'unknown field "spec.prots"' in kubectl("create", "-f", "-", input=unknown, check=False)


def test_a_kind_that_nothing_acts_on_is_answered_with_a_warning(kubectl):
    """Nothing is silently ignored."""
    policy = (
        '{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"p"},"spec":{"podSelector":{}}}'
    )
    assert "Warning:" in kubectl("apply", "-f", "-", input=policy, check=False)


def test_an_image_that_cannot_be_had_says_why(kubectl):
    """ImagePullBackOff, with a message that names the image and what went wrong."""
    kubectl("run", "pulled", "--image=127.0.0.1:9/nginx:1.27")

    def waiting():
        found = kubectl("get", "pod", "pulled", "-o", "jsonpath={.status.containerStatuses[0].state.waiting}")
        return found if "ImagePullBackOff" in found else ""

    told = eventually(waiting)
    assert "ErrImagePull: failed to resolve reference" in told
    assert "127.0.0.1:9/nginx:1.27" in told
    assert "ImagePullBackOff" in kubectl("get", "pod", "pulled")


def test_watch_shows_changes_as_they_come(three_nodes, namespace):
    """`get -w` prints a line for each change."""
    watching = subprocess.Popen(
        [str(kubectls()[0]), "-n", namespace, "get", "configmaps", "-w", "--no-headers"],
        env={"KUBECONFIG": str(three_nodes.kubeconfig), "PATH": "/usr/bin", "HOME": "/tmp"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        assert "kube-root-ca.crt" in watching.stdout.readline()
        three_nodes.kubectl("-n", namespace, "create", "configmap", "fresh", "--from-literal=a=b")
        assert "fresh" in watching.stdout.readline()
    finally:
        watching.kill()
        watching.communicate()


def test_everyone_without_a_certificate_gets_401(three_nodes):
    """No certificate, no API; the version stays public."""
    kubeconfig = three_nodes.kubeconfig.read_text()
    server = next(line.split()[1] for line in kubeconfig.splitlines() if line.strip().startswith("server:"))
    code = (
        "import ssl,sys,urllib.request,urllib.error\n"
        "c=ssl._create_unverified_context()\n"
        "try: print(urllib.request.urlopen(sys.argv[1],context=c).status)\n"
        "except urllib.error.HTTPError as e: print(e.code, e.read().decode())\n"
    )

    def ask(path: str) -> str:
        return subprocess.run([sys.executable, "-c", code, server + path], capture_output=True, text=True).stdout

    refused = ask("/api/v1/namespaces")
    assert refused.startswith("401")
    assert '"reason":"Unauthorized"' in refused.replace(" ", "")
    assert ask("/version").startswith("200")


def test_what_the_cluster_has(three_nodes):
    """api-resources, nodes, namespaces, and the Services every cluster has."""
    resources = three_nodes.kubectl("api-resources")
    for name in ("services", "endpointslices", "deployments", "servicecidrs", "ipaddresses"):
        assert name in resources
    nodes = three_nodes.kubectl("get", "nodes", "-o", "wide")
    assert nodes.count(" Ready ") == 3
    every = three_nodes.kubectl("get", "services", "-A")
    assert "10.96.0.1 " in every
    assert "10.96.0.10 " in every
    assert "PORT" in three_nodes.kubectl("explain", "service.spec.ports").upper()
