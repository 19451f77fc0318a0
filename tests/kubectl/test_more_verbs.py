"""The verbs that are asked for less often: auth, autoscale, top, set, wait, delete in its ways, in upstream's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.apiserver import ServerThread
from support.kubectl import Kubectl

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: host, command: [sleep, infinity]}
"""
UNSERVED = "HorizontalPodAutoscaler is stored, but nothing in this cluster acts on it"


# ── auth ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_whoami_says_who_the_certificate_is(kubectl: Kubectl) -> None:
    lines = [line.split(None, 1) for line in kubectl("auth", "whoami").splitlines()]
    assert lines == [
        ["ATTRIBUTE", "VALUE"],
        ["Username", "admin"],
        ["Groups", "[system:masters system:authenticated]"],
    ]


@pytest.mark.parametrize(
    "question",
    [("create", "pods"), ("delete", "services/web"), ("get", "pods", "--subresource=log"), ("*", "*"),
     ("get", "/metrics")],
    ids=" ".join,
)  # fmt: skip
def test_can_i_is_answered_with_yes(kubectl: Kubectl, question: tuple[str, ...]) -> None:
    assert kubectl("auth", "can-i", *question) == "yes\n"


def test_can_i_lists_everything(kubectl: Kubectl) -> None:
    rows = [" ".join(line.split()) for line in kubectl("auth", "can-i", "--list").splitlines()]
    assert rows[1:] == ["*.* [] [] [*]", "[*] [] [*]"]


# ── autoscale ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_autoscale_and_both_versions_of_what_it_makes(kubectl: Kubectl) -> None:
    """The newest kubectl writes autoscaling/v2, older ones v1."""
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    done = kubectl.run("autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu-percent=50")
    assert done.stdout == "horizontalpodautoscaler.autoscaling/web autoscaled\n"
    assert done.stderr.splitlines()[-1] == f"Warning: {UNSERVED}"
    heading, row = kubectl("get", "hpa").splitlines()
    assert heading.split() == ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]
    assert row.split()[:6] == ["web", "Deployment/web", "cpu:", "<unknown>/50%", "1", "3"]
    old = kubectl.json("get", "horizontalpodautoscalers.v1.autoscaling", "web")
    assert (old["apiVersion"], old["spec"]["targetCPUUtilizationPercentage"]) == ("autoscaling/v1", 50)
    new = kubectl.json("get", "horizontalpodautoscalers.v2.autoscaling", "web")
    assert (new["apiVersion"], new["spec"]["metrics"][0]["resource"]["target"]) == (
        "autoscaling/v2",
        {"type": "Utilization", "averageUtilization": 50},
    )
    old["spec"]["targetCPUUtilizationPercentage"] = 60
    assert "replaced" in kubectl("replace", "-f", "-", stdin=json.dumps(old))
    assert "/ 60%" in kubectl("describe", "hpa", "web")
    assert "autoscaling/v1\nautoscaling/v2\n" in kubectl("api-versions")
    assert "targetCPUUtilizationPercentage" in kubectl("explain", "hpa.spec", "--api-version=autoscaling/v1")


# ── set, label, annotate ─────────────────────────────────────────────────────────────────────────────────────────────


def test_set_in_all_its_ways(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("create", "service", "clusterip", "web", "--tcp=80")
    for words, printed in (
        (("image", "deployment/web", "*=other"), "deployment.apps/web image updated\n"),
        (("env", "deployment/web", "A=1"), "deployment.apps/web env updated\n"),
        (("resources", "deployment/web", "--requests=cpu=1"), "deployment.apps/web resource requirements updated\n"),
        (("serviceaccount", "deployment/web", "robot"), "deployment.apps/web serviceaccount updated\n"),
        (("selector", "service/web", "tier=front"), "service/web selector updated\n"),
    ):
        assert kubectl("set", *words) == printed
    spec = kubectl.json("get", "deployment", "web")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert (container["image"], container["env"], container["resources"], spec["serviceAccountName"]) == (
        "other", [{"name": "A", "value": "1"}], {"requests": {"cpu": "1"}}, "robot",
    )  # fmt: skip
    assert kubectl.json("get", "service", "web")["spec"]["selector"] == {"tier": "front"}
    listed = kubectl("set", "env", "deployment/web", "--list")
    assert listed.endswith(", container web\nA=1\n")


def test_labels_and_annotations_are_listed_changed_and_removed(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "x")
    assert kubectl("label", "configmap", "x", "a=1") == "configmap/x labeled\n"
    assert "--overwrite is false" in kubectl.fails("label", "configmap", "x", "a=2")
    assert kubectl("label", "configmap", "x", "a=2", "--overwrite") == "configmap/x labeled\n"
    assert kubectl("label", "configmap", "x", "--list") == "a=2\n"
    assert kubectl("label", "configmap", "x", "a-") == "configmap/x unlabeled\n"
    assert kubectl("annotate", "configmap", "x", "a=1") == "configmap/x annotated\n"
    assert kubectl("annotate", "configmap", "x", "a-") == "configmap/x annotated\n"
    assert "metadata.labels" in kubectl.fails("patch", "configmap", "x", "-p", '{"metadata":{"labels":{"-":"x"}}}')


# ── delete, wait, watch ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), 'pod "p" deleted'),
        (("--now",), 'pod "p" deleted'),
        (("--grace-period=5",), 'pod "p" deleted'),
        (("--grace-period=0", "--force"), 'pod "p" force deleted'),
        (("--wait=false",), 'pod "p" deleted'),
        (("--cascade=orphan", "--wait=false"), 'pod "p" deleted'),
        (("-o", "name"), "pod/p"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_pod_is_deleted_in_every_way(kubectl: Kubectl, words: tuple[str, ...], said: str) -> None:
    kubectl("run", "p", "--image=host")
    assert kubectl("delete", "pod", "p", *words).startswith(said)
    assert kubectl.fails("delete", "pod", "q") == 'Error from server (NotFound): pods "q" not found\n'
    assert kubectl("delete", "pod", "q", "--ignore-not-found") == ""


def test_wait_for_creation_a_field_and_deletion(kubectl: Kubectl) -> None:
    waiting = kubectl.start("wait", "--for=create", "service/web", "--timeout=60s")
    kubectl("create", "service", "clusterip", "web", "--tcp=80")
    printed, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, printed) == (0, "service/web condition met\n")
    field = "--for=jsonpath={.spec.type}=ClusterIP"
    assert kubectl("wait", field, "service/web", "--timeout=60s") == "service/web condition met\n"
    waiting = kubectl.start("wait", "--for=delete", "service/web", "--timeout=60s")
    kubectl("delete", "service", "web")
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    error = kubectl.fails("wait", "--for=condition=Ready", "service/web", "--timeout=1s")
    assert 'services "web" not found' in error


def test_a_watch_says_what_kind_of_change_it_saw(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "a")
    watching = kubectl.start("get", "configmaps", "-w", "--output-watch-events", "-o", "name")
    assert watching.stdout is not None
    try:
        seen = [watching.stdout.readline().split()]
        kubectl("label", "configmap", "a", "x=y")
        kubectl("delete", "configmap", "a")
        seen += [watching.stdout.readline().split() for _ in range(2)]
    finally:
        watching.kill()
        watching.communicate()
    assert [line[-1] for line in seen] == ["configmap/a"] * 3


# ── create ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("namespace made-{namespace}", "namespace/made-{namespace}"),
        ("serviceaccount x", "serviceaccount/x"),
        ("configmap x --from-literal=a=b", "configmap/x"),
        ("secret generic x --from-literal=a=b", "secret/x"),
        ("deployment x --image=host --replicas=0", "deployment.apps/x"),
        ("service clusterip x --tcp=80:8080", "service/x"),
        ("service clusterip x --clusterip=None", "service/x"),
        ("service nodeport x --tcp=80", "service/x"),
        ("service loadbalancer x --tcp=80", "service/x"),
        ("service externalname x --external-name=example.com", "service/x"),
        ("ingress x --rule=a.b/*=web:80", "ingress.networking.k8s.io/x"),
        ("job x --image=host", "job.batch/x"),
        ("cronjob x --image=host --schedule=@daily", "cronjob.batch/x"),
        ("quota x --hard=pods=2", "resourcequota/x"),
        ("poddisruptionbudget x --selector=a=b --min-available=1", "poddisruptionbudget.policy/x"),
        ("priorityclass p-{namespace} --value=5", "priorityclass.scheduling.k8s.io/p-{namespace}"),
    ],
)
def test_create_in_all_its_ways(kubectl: Kubectl, words: str, made: str) -> None:
    arguments = words.format(namespace=kubectl.namespace).split()
    made = made.format(namespace=kubectl.namespace)
    assert kubectl("create", "--dry-run=server", *arguments) == f"{made} created (server dry run)\n"
    assert kubectl("create", *arguments) == f"{made} created\n"
    assert "already exists" in kubectl.fails("create", *arguments)


# ── about the cluster ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", ["pods", "nodes"])
def test_top_says_that_there_are_no_metrics(kubectl: Kubectl, what: str) -> None:
    assert kubectl.fails("top", what) == "error: Metrics API not available\n"


def test_cluster_info_and_version(kubectl: Kubectl, server: ServerThread) -> None:
    assert f"https://127.0.0.1:{server.port}" in kubectl("cluster-info").splitlines()[0]
    version = kubectl.json("version")["serverVersion"]
    assert (version["major"], version["minor"]) == ("1", "36")


def test_the_whole_cluster_can_be_dumped(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("cluster-info", "dump", "--namespaces", kubectl.namespace, f"--output-directory={tmp_path}")
    assert {path.name for path in (tmp_path / kubectl.namespace).iterdir()} >= {"services.json", "pods.json"}


# ── fieldValidation ──────────────────────────────────────────────────────────────────────────────────────────────────

MANIFEST = (
    '{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"selektor":{"a":"b"},"ports":[{"port":80}]}}'
)


@pytest.mark.parametrize("verb", ["create", "apply", "replace"])
@pytest.mark.parametrize("validate", ["strict", "warn", "ignore"])
def test_an_unknown_field_is_refused_warned_about_or_left_out_in_silence(
    kubectl: Kubectl, verb: str, validate: str
) -> None:
    if verb == "replace":
        kubectl("create", "service", "clusterip", "web", "--tcp=80")
    done = kubectl.run(verb, f"--validate={validate}", "-f", "-", stdin=MANIFEST, check=False)
    assert (done.returncode == 0) == (validate != "strict"), done.stderr
    assert ('unknown field "spec.selektor"' in done.stderr) == (validate != "ignore")
    if validate != "strict":
        assert "selektor" not in kubectl.json("get", "service", "web")["spec"]
        assert "selector" not in kubectl.json("get", "service", "web")["spec"]
