"""`kubesvc apply`, `get`, `delete`, `logs` and `exec` say what the real kubectl says."""

from __future__ import annotations

import re
import subprocess

import pytest

from support.box import KUBESVC, BoxUnderTest, eventually, fresh_box

MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: web, image: host, command: [sh, -c, "echo one; echo two; exec sleep 1000"]}
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    with fresh_box(tmp_path_factory.mktemp("b") / "box") as fresh:
        fresh.up()
        fresh.kubectl("create", "namespace", "other")
        yield fresh


def ours(box: BoxUnderTest, *words: str, stdin: str | None = None) -> tuple[int, str, str]:
    command = [str(KUBESVC), words[0], "--name", box.name, "--dir", str(box.directory), *words[1:]]
    found = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    return found.returncode, found.stdout, found.stderr


def theirs(box: BoxUnderTest, *words: str, stdin: str | None = None) -> tuple[int, str, str]:
    command = ["kubectl", "--kubeconfig", str(box.kubeconfig), *words]
    command[0] = str(KUBESVC.with_name("kubectl"))
    found = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    return found.returncode, found.stdout, found.stderr


def ageless(part: object) -> object:
    """An AGE grows between the two, and with it what separates it from the next column."""
    return re.sub(r"\b(AGE|(\d+[dhms])+)\b *", "AGE ", part) if isinstance(part, str) else part


def test_apply_and_delete_say_what_kubectl_says(box):
    """Both in a namespace of their own: created, unchanged, configured, deleted."""
    steps = [
        (("apply", "-f", "-"), MANIFEST),
        (("apply", "-f", "-"), MANIFEST),
        (("apply", "-f", "-"), MANIFEST.replace("port: 80", "port: 81")),
        (("delete", "-f", "-"), MANIFEST),
        (("delete", "service", "web"), None),
    ]
    box.kubectl("create", "namespace", "mine")
    for words, text in steps:
        mine = ours(box, *words, "-n", "mine", stdin=text)
        real = theirs(box, *words, "-n", "other", stdin=text)
        assert tuple(part.replace("mine", "other") if isinstance(part, str) else part for part in mine) == real, words


@pytest.mark.parametrize(
    "words",
    [
        ("get", "nodes"),
        ("get", "nodes", "-o", "wide"),
        ("get", "services", "-A"),
        ("get", "svc", "kubernetes", "--no-headers"),
        ("get", "service/kubernetes", "-o", "name"),
        ("get", "svc", "kubernetes", "-o", "yaml"),
        ("get", "svc", "kubernetes", "-o", "json"),
        ("get", "pods", "-n", "kube-system"),
        ("get", "svc", "-l", "none=such"),
        ("get", "namespaces", "default", "kube-system"),
        ("get", "service", "absent"),
        ("get", "nonsense"),
        ("get", "all"),
        ("get", "nodes,svc"),
        ("get", "svc,endpointslices", "-o", "name"),
        ("get", "ns/default", "svc/kubernetes", "-o", "json"),
        ("get", "jobs,cronjobs"),
    ],
    ids=" ".join,
)
def test_get_says_what_kubectl_says(box, words):
    mine, real = ours(box, *words), theirs(box, *words)
    assert [ageless(part) for part in mine] == [ageless(part) for part in real]


def test_logs_and_exec_say_what_kubectl_says(box):
    ours(box, "apply", "-n", "other", "-f", "-", stdin=MANIFEST)
    box.kubectl("rollout", "status", "deployment/web", "-n", "other", "--timeout=60s")
    eventually(lambda: box.kubectl("logs", "deployment/web", "-n", "other") == "one\ntwo\n")  # a pod is ready before
    for words in (("logs", "deployment/web"), ("logs", "deployment/web", "--tail=1"), ("logs", "absent")):
        assert ours(box, *words, "-n", "other") == theirs(box, *words, "-n", "other"), words
    for command in (["sh", "-c", "echo out; echo err >&2; exit 3"], ["cat", "/none"], ["true"]):
        words = ("exec", "-n", "other", "deployment/web", "--", *command)
        assert ours(box, *words) == theirs(box, *words), command
    assert ours(box, "exec", "-n", "other", "-i", "deployment/web", "--", "cat", stdin="through") == (0, "through", "")
    box.kubectl("delete", "deployment", "web", "-n", "other")


TWO = """
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: a, image: host, command: [sh, -c, "echo from a; exec sleep 1000"]}
  - {name: b, image: host, command: [sh, -c, "echo from b; exec sleep 1000"]}
"""


def test_of_several_containers_one_is_chosen_as_kubectl_does(box):
    box.kubectl("apply", "-f", "-", input=TWO)
    box.kubectl("wait", "--for=condition=Ready", "pod/two", "--timeout=60s")
    for name in "ab":
        eventually(lambda name=name: box.kubectl("logs", "two", "-c", name) == f"from {name}\n")
    for words in (
        ("logs", "two"),
        ("logs", "two", "-c", "b"),
        ("logs", "two", "-c", "c"),
        ("exec", "two", "--", "true"),
        ("exec", "two", "-c", "b", "--", "sh", "-c", "exit 4"),
        ("exec", "two", "-c", "c", "--", "true"),
        ("exec", "absent", "--", "true"),
    ):
        assert ours(box, *words) == theirs(box, *words), words
    box.kubectl("annotate", "pod", "two", "kubectl.kubernetes.io/default-container=b")
    assert ours(box, "logs", "two") == theirs(box, "logs", "two") == (0, "from b\n", "")
    assert ours(box, "exec", "two", "sh", "-c", "exit 4")[0] == 4
    box.kubectl("delete", "pod", "two")


def test_a_manifest_that_is_refused_is_refused_as_kubectl_does(box):
    bad = "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 0}, {port: 70000}]}\n"
    assert ours(box, "apply", "-f", "-", stdin=bad) == theirs(box, "apply", "-f", "-", stdin=bad)
    code, _, error = ours(box, "apply", "-f", "-", stdin=bad.replace("ports", "prots"))
    assert (code, 'unknown field "spec.prots"' in error) == (1, True)
    code, _, error = ours(box, "apply", "-f", "-", stdin="x: 1\n")
    assert (code, error) == (
        1, 'error: error validating "STDIN": error validating data: [apiVersion not set, kind not set]\n'
    )  # fmt: skip


DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Lamp, plural: lamps, singular: lamp, shortNames: [lm], categories: [house]}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
LAMP = "apiVersion: example.com/v1\nkind: Lamp\nmetadata: {name: desk}\nspec: {bright: true}\n"


def test_custom_kinds_are_kinds(box):
    made = "customresourcedefinition.apiextensions.k8s.io/lamps.example.com created\n"
    assert ours(box, "apply", "-f", "-", stdin=DEFINITION) == (0, made, "")
    box.kubectl("wait", "--for=condition=Established", "crd/lamps.example.com", "--timeout=60s")
    assert ours(box, "apply", "-f", "-", stdin=LAMP) == (0, "lamp.example.com/desk created\n", "")
    for words in (("get", "lm"), ("get", "lamps.example.com", "-o", "name"), ("get", "lamp/desk"), ("get", "house")):
        mine, real = ours(box, *words), theirs(box, *words)
        assert [ageless(part) for part in mine] == [ageless(part) for part in real], words
    assert ours(box, "delete", "lamp", "desk")[1] == 'lamp.example.com "desk" deleted from default namespace\n'
    box.kubectl("delete", "crd", "lamps.example.com")
