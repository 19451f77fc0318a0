"""Every verb and every form of output of real kubectl, each version installed here, in upstream's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.kubectl import Kubectl

SERVICE = """
apiVersion: v1
kind: Service
metadata:
  name: web
  labels: {app: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
"""

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

NODE = '{"apiVersion":"v1","kind":"Node","metadata":{"name":"%s"}}'


def columns(text: str, line: int = 0) -> list[str]:
    return text.splitlines()[line].split()


# ── forms of output ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("name", "service/web\n"),
        ("jsonpath={.spec.ports[0].targetPort}", "8080"),
        ("go-template={{.metadata.name}}:{{len .spec.ports}}", "web:1"),
        ("custom-columns=NAME:.metadata.name,PORT:.spec.ports[*].port", "NAME   PORT\nweb    80\n"),
    ],
)
def test_one_object_in_a_form(kubectl: Kubectl, form: str, printed: str) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    assert kubectl("get", "service", "web", "-o", form) == printed


def test_lists_are_sorted_labelled_and_of_several_kinds(kubectl: Kubectl) -> None:
    for name, value in (("b", "1"), ("a", "2")):
        kubectl("create", "configmap", name, f"--from-literal=v={value}")
    names = "jsonpath={.items[*].metadata.name}"
    assert kubectl("get", "configmaps", "--sort-by=.data.v", "-o", names) == "b a"
    assert kubectl("get", "configmaps", "--sort-by=.metadata.name", "--no-headers", "-o", "name").split() == [
        "configmap/a",
        "configmap/b",
    ]
    kubectl("apply", "-f", "-", stdin=SERVICE)
    shown = kubectl("get", "services", "--show-labels")
    assert (columns(shown)[-1], columns(shown, 1)[-1]) == ("LABELS", "app=web")
    assert columns(kubectl("get", "services", "-L", "app"))[-1] == "APP"
    both = kubectl("get", "service/web", "configmap/a", "-o", "name")
    assert both.split() == ["service/web", "configmap/a"]


def test_everything_lists_the_kinds_of_its_category(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("create", "cronjob", "c", "--image=host", "--schedule=*/5 * * * *")
    found = kubectl("get", "all", "-o", "name").split()
    assert sorted(found) == ["cronjob.batch/c", "deployment.apps/web", "service/web"]
    printed = kubectl("delete", "all", "--all")
    assert all(f'"{name}" deleted' in printed for name in ("web", "c"))
    assert kubectl("get", "all", "-o", "name") == ""


def test_an_object_that_is_not_there_and_a_kind_nobody_knows(kubectl: Kubectl) -> None:
    assert kubectl.fails("get", "service", "web") == 'Error from server (NotFound): services "web" not found\n'
    assert kubectl.fails("get", "nonsense") == 'error: the server doesn\'t have a resource type "nonsense"\n'
    done = kubectl.run("get", "services")
    assert (done.stdout, done.stderr) == ("", f"No resources found in {kubectl.namespace} namespace.\n")


def test_only_changes_are_watched_when_asked(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "first")
    watching = kubectl.start("get", "configmaps", "--watch-only", "-o", "name")
    assert watching.stdout is not None
    try:
        label = 0
        while not (line := _line_after(kubectl, watching.stdout, label)):
            label += 1
        assert line == "configmap/first"
    finally:
        watching.kill()
        watching.communicate()


def _line_after(kubectl: Kubectl, output: object, number: int) -> str:
    """The watch may begin after the first changes, so change on until it speaks."""
    import select

    kubectl("label", "configmap", "first", f"n={number}", "--overwrite")
    ready, _, _ = select.select([output], [], [], 0.2)
    return output.readline().strip() if ready else ""  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("kind", "selector", "why"),
    [
        (
            "deployments",
            "spec.x=1",
            '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        ("pods", "spec.x=1", "field label not supported: spec.x"),
    ],
)
def test_a_field_nobody_selects_by(kubectl: Kubectl, kind: str, selector: str, why: str) -> None:
    assert kubectl.fails("get", kind, "--field-selector", selector).strip().endswith(why)


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dry_runs_on_the_server_say_so_and_leave_everything(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    before = kubectl.json("get", "service", "web")["metadata"]["resourceVersion"]
    dry = "--dry-run=server"
    assert kubectl("apply", dry, "-f", "-", stdin=SERVICE) == "service/web unchanged (server dry run)\n"
    assert kubectl("label", dry, "service", "web", "a=b") == "service/web labeled (server dry run)\n"
    patched = kubectl("patch", dry, "service", "web", "-p", '{"spec":{"type":"NodePort"}}')
    assert patched.startswith("service/web patched")  # kubectl leaves the remark out here
    assert "(server dry run)" in kubectl("replace", dry, "-f", "-", stdin=SERVICE)
    assert "(server dry run)" in kubectl("delete", dry, "service", "web")
    assert "(server dry run)" in kubectl("create", dry, "configmap", "x")
    assert kubectl.json("get", "service", "web")["metadata"]["resourceVersion"] == before


def test_diff_is_silent_where_nothing_changes(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    assert kubectl("diff", "-f", "-", stdin=SERVICE) == ""
    changed = kubectl.run("diff", "-f", "-", stdin=SERVICE.replace("8080", "9090"), check=False)
    assert changed.returncode == 1
    assert "-    targetPort: 8080\n+    targetPort: 9090\n" in changed.stdout


def test_replace_by_force_makes_another_object(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    before = kubectl.json("get", "service", "web")["metadata"]["uid"]
    assert "service/web replaced" in kubectl("replace", "--force", "-f", "-", stdin=SERVICE)
    assert kubectl.json("get", "service", "web")["metadata"]["uid"] != before


def test_apply_prunes_what_is_no_longer_said(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE + "---\n" + DEPLOYMENT)
    pruned = kubectl("apply", "--prune", "-l", "app=web", "-f", "-", stdin=SERVICE)
    assert "deployment.apps/web pruned" in pruned
    assert kubectl("get", "deployments", "-o", "name") == ""


def test_set_image_and_the_verbs_of_a_rollout(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    assert kubectl("set", "image", "deployment/web", "web=other") == "deployment.apps/web image updated\n"
    assert kubectl("rollout", "pause", "deployment/web") == "deployment.apps/web paused\n"
    assert kubectl("rollout", "resume", "deployment/web") == "deployment.apps/web resumed\n"
    assert kubectl("rollout", "restart", "deployment/web") == "deployment.apps/web restarted\n"
    assert "deployment.apps/web" in kubectl("rollout", "history", "deployment/web")
    spec = kubectl.json("get", "deployment", "web")["spec"]["template"]
    assert spec["spec"]["containers"][0]["image"] == "other"
    assert "kubectl.kubernetes.io/restartedAt" in spec["metadata"]["annotations"]


def test_a_node_is_tainted_cordoned_and_drained(kubectl: Kubectl) -> None:
    node = f"node-{kubectl.namespace}"
    kubectl("create", "-f", "-", stdin=NODE % node)
    assert kubectl("taint", "node", node, "a=b:NoSchedule") == f"node/{node} tainted\n"
    assert kubectl("taint", "node", node, "a:NoSchedule-") == f"node/{node} untainted\n"
    assert kubectl("cordon", node) == f"node/{node} cordoned\n"
    assert columns(kubectl("get", "node", node), 1)[1] == "Unknown,SchedulingDisabled"
    assert kubectl("uncordon", node) == f"node/{node} uncordoned\n"
    kubectl("run", "one", "--image=host", f'--overrides={{"spec":{{"nodeName":"{node}"}}}}')
    phase = json.dumps({"status": {"phase": "Succeeded"}})
    kubectl("patch", "pod", "one", "--subresource=status", "--type=merge", "-p", phase)
    printed = kubectl("drain", node, "--force", "--timeout=60s")
    assert f"evicting pod {kubectl.namespace}/one" in printed + kubectl.run("get", "pods").stderr
    assert f"node/{node} drained" in printed
    assert kubectl("get", "pods", "-o", "name") == ""
    kubectl("delete", "node", node)


# ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_explain_goes_down_to_the_last_field(kubectl: Kubectl) -> None:
    printed = kubectl("explain", "service.spec", "--recursive")
    assert "  sessionAffinityConfig\t<SessionAffinityConfig>\n    clientIP\t<ClientIPConfig>\n" in printed
    for path in ("cronjob.spec.jobTemplate", "hpa.spec.metrics", "pdb.spec", "pvc.spec", "rc.spec", "quota.spec"):
        assert "FIELDS:" in kubectl("explain", path), path


def test_api_resources_by_verb_and_scope(kubectl: Kubectl) -> None:
    global_ = kubectl("api-resources", "--verbs=list,watch", "--namespaced=false", "-o", "name").split()
    assert {"nodes", "persistentvolumes", "priorityclasses.scheduling.k8s.io", "storageclasses.storage.k8s.io"} <= set(
        global_
    )
    assert "services" not in global_
    assert "events.events.k8s.io" in kubectl("api-resources", "--api-group=events.k8s.io", "-o", "name")


def test_raw_paths(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/readyz?verbose").endswith("readyz check passed\n")
    assert "apiserver_request_total{" in kubectl("get", "--raw", "/metrics")
    assert json.loads(kubectl("get", "--raw", "/version"))["minor"] == "36"


def test_events_are_printed_by_both_their_commands(kubectl: Kubectl) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "web.1", "namespace": kubectl.namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/tester",
        "reportingInstance": "tester-1",
        "action": "Testing",
        "reason": "Tested",
        "regarding": {"apiVersion": "v1", "kind": "Service", "namespace": kubectl.namespace, "name": "web"},
        "note": "an event of this test",
        "type": "Warning",
    }
    kubectl("create", "-f", "-", stdin=json.dumps(event))
    heading = ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    for command in (("get", "events"), ("get", "events.events.k8s.io"), ("events",), ("events", "--for=service/web")):
        printed = kubectl(*command)
        assert columns(printed) == heading, command
        assert printed.splitlines()[1].split(None, 1)[1].split() == [
            "Warning", "Tested", printed.splitlines()[1].split()[3], *["an", "event", "of", "this", "test"],
        ], command  # fmt: skip
    assert kubectl("get", "events", "--field-selector", "involvedObject.name=db", "-o", "name") == ""


def test_whoami_says_who_asks(kubectl: Kubectl) -> None:
    assert "[system:masters system:authenticated]" in kubectl("auth", "whoami")


# ── kinds that are only stored ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("create", "get", "heading"),
    [
        ("quota q --hard=pods=2", "quota", "NAME REQUEST LIMIT AGE"),
        ("ingress i --rule=a.b/*=web:80", "ing", "NAME CLASS HOSTS ADDRESS PORTS AGE"),
    ],
    ids=["ResourceQuota", "Ingress"],
)  # fmt: skip
def test_a_kind_that_is_only_stored_is_printed_and_warned_about_once(
    kubectl: Kubectl, create: str, get: str, heading: str
) -> None:
    done = kubectl.run("create", *create.split())
    assert done.stderr.count("Warning: ") == 1
    assert done.stderr.endswith("is stored, but nothing in this cluster acts on it\n")
    assert " ".join(columns(kubectl("get", get))) == heading


def test_no_warning_of_ours_is_printed_twice(kubectl: Kubectl, tmp_path: Path) -> None:
    """A create, an apply that changes and one of two objects: one line for each thing there is to say."""
    policy = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, labels: {n: '%s'}}\n"
        "spec: {podSelector: {}}\n"
    )
    for text in (policy % ("a", 1), policy % ("a", 2), policy % ("b", 1) + "---\n" + policy % ("c", 1)):
        found = kubectl.run("apply", "-f", "-", stdin=text).stderr
        assert found.count("NetworkPolicy is stored") == 1, found
    assert kubectl.run("get", "endpoints").stderr.count("v1 Endpoints is deprecated in v1.33+") == 1
