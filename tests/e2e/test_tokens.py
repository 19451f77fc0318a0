"""Programs in pods that talk to the API as their ServiceAccount: real clients, found by their own means, with RBAC."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.box import NEWEST_KUBECTL, BoxUnderTest, eventually

PACKAGES = Path(sys.prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
READ_PODS = """
import kubernetes
kubernetes.config.load_incluster_config()
api = kubernetes.client.CoreV1Api()
namespace = open("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read()
try:
    print("pods:", *sorted(pod.metadata.name for pod in api.list_namespaced_pod(namespace).items))
except kubernetes.client.ApiException as error:
    print("refused:", error.status, error.reason)
who = kubernetes.client.AuthenticationV1Api().create_self_subject_review({"kind": "SelfSubjectReview"})
print("I am", who.status.user_info.username)
"""


def pod(name: str, **spec: Any) -> str:
    """A pod that waits; with the clients of this Python, and kubectl, from the machine."""
    mounts = [
        {"name": "packages", "mountPath": "/packages", "readOnly": True},
        {"name": "tools", "mountPath": "/tools/kubectl", "readOnly": True},
    ]
    volumes = [
        {"name": "packages", "hostPath": {"path": str(PACKAGES)}},
        {"name": "tools", "hostPath": {"path": str(NEWEST_KUBECTL.resolve())}},
    ]
    environment = [{"name": "PYTHONPATH", "value": "/packages"}]
    container = {"name": "main", "image": "host", "command": ["sleep", "infinity"], "volumeMounts": mounts}
    whole = {"terminationGracePeriodSeconds": 1, "volumes": volumes, "containers": [container | {"env": environment}]}
    tree = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole | spec}
    return json.dumps(tree)


@pytest.fixture
def kubectl(three_nodes: BoxUnderTest, namespace: str) -> Callable[..., str]:
    def run(*words: str, input: str | None = None) -> str:
        return three_nodes.kubectl("-n", namespace, *words, input=input)

    return run


def test_clients_in_a_pod_find_the_api_by_themselves(
    three_nodes: BoxUnderTest, namespace: str, kubectl: Callable[..., str]
) -> None:
    """Refused before a role is bound, let in after; as themselves; over https://kubernetes.default.svc."""
    kubectl("create", "serviceaccount", "reader")
    kubectl("apply", "-f", "-", input=pod("one", serviceAccountName="reader"))
    kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
    first = kubectl("exec", "one", "--", "python3", "-c", READ_PODS)
    me = f"system:serviceaccount:{namespace}:reader"
    assert first.splitlines() == ["refused: 403 Forbidden", f"I am {me}"]
    refused = three_nodes.kubectl("-n", namespace, "exec", "one", "--", "/tools/kubectl", "get", "pods", check=False)
    assert f'User "{me}" cannot list resource "pods" in API group "" in the namespace "{namespace}"' in refused
    kubectl("create", "rolebinding", "read", "--clusterrole=view", f"--serviceaccount={namespace}:reader")
    assert kubectl("exec", "one", "--", "python3", "-c", READ_PODS).splitlines() == ["pods: one", f"I am {me}"]
    assert "one" in kubectl("exec", "one", "--", "/tools/kubectl", "get", "pods")
    assert me in kubectl("exec", "one", "--", "/tools/kubectl", "auth", "whoami")
    whole = f"--cacert {MOUNT}/ca.crt https://kubernetes.default.svc/api/v1/namespaces/{namespace}/pods"
    by_name = f'curl -sf -H "Authorization: Bearer $(cat {MOUNT}/token)" {whole}'
    assert json.loads(kubectl("exec", "one", "--", "sh", "-c", by_name))["kind"] == "PodList"


def test_a_pods_token_is_worth_nothing_when_it_is_gone(
    three_nodes: BoxUnderTest, namespace: str, kubectl: Callable[..., str]
) -> None:
    kubectl("apply", "-f", "-", input=pod("short"))
    kubectl("wait", "--for=condition=Ready", "pod/short", "--timeout=60s")
    token = kubectl("exec", "short", "--", "cat", f"{MOUNT}/token")
    server = kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    words = ("--kubeconfig=/dev/null", f"--server={server}", "--insecure-skip-tls-verify", f"--token={token}")
    assert f"system:serviceaccount:{namespace}:default" in kubectl(*words, "auth", "whoami")
    kubectl("delete", "pod", "short")
    assert "Unauthorized" in three_nodes.kubectl(*words, "auth", "whoami", check=False)


def test_a_box_keeps_its_key_to_itself(three_nodes: BoxUnderTest) -> None:
    """In a file of its own, that only its owner can read."""
    assert (three_nodes.directory / "pki" / "sa.key").stat().st_mode & 0o777 == 0o600


def test_a_secret_for_a_token_goes_with_its_account(kubectl: Callable[..., str]) -> None:
    kubectl("create", "serviceaccount", "robot")
    annotations = {"kubernetes.io/service-account.name": "robot"}
    tree = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token"}
    kubectl("apply", "-f", "-", input=json.dumps(tree | {"metadata": {"name": "robot", "annotations": annotations}}))
    assert "token" in json.loads(kubectl("get", "secret", "robot", "-o", "json"))["data"]
    kubectl("delete", "serviceaccount", "robot")
    eventually(lambda: "robot" not in kubectl("get", "secrets"), what="the Secret goes too")
    ghost = {"metadata": {"name": "ghost", "annotations": {"kubernetes.io/service-account.name": "ghost"}}}
    kubectl("create", "-f", "-", input=json.dumps(tree | ghost))
    eventually(lambda: "ghost" not in kubectl("get", "secrets"), what="one of nobody's goes")
