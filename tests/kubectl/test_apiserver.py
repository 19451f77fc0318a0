"""Real kubectl, each version installed here, against an API server over SQLite and TLS."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from support.apiserver import ServerThread
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
  - name: http
    port: 80
    targetPort: 8080
"""

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
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
"""


def test_get_prints_tables(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    address = kubectl.json("get", "service", "web")["spec"]["clusterIP"]
    heading, line = kubectl("get", "services").splitlines()
    assert heading.split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert line.split()[:5] == ["web", "ClusterIP", address, "<none>", "80/TCP"]
    wide = kubectl("get", "services", "-o", "wide").splitlines()
    assert wide[0].split()[-1] == "SELECTOR"
    assert wide[1].split()[-1] == "app=web"
    everywhere = kubectl("get", "services", "-A")
    assert "kubernetes" in everywhere
    assert kubectl.namespace in everywhere


def test_get_selects_by_label_and_field(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("create", "service", "clusterip", "other", "--tcp=81:81")
    assert kubectl("get", "svc", "-l", "app=web", "-o", "name").split() == ["service/web"]
    assert kubectl("get", "svc", "-l", "app!=web", "-o", "name").split() == ["service/other"]
    assert kubectl("get", "svc", "--field-selector", "metadata.name=other", "-o", "name").split() == ["service/other"]
    assert "field label not supported" in kubectl.fails("get", "svc", "--field-selector", "spec.nonsense=1")


def test_get_prints_yaml_that_can_be_applied(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    text = kubectl("get", "service", "web", "-o", "yaml")
    assert "clusterIP: 10.96." in text
    kubectl("delete", "service", "web")
    assert "unchanged" not in kubectl("apply", "-f", "-", stdin=SERVICE)


def test_get_pages_through_many(kubectl: Kubectl) -> None:
    for name in "abcde":
        kubectl("create", "configmap", name)
    assert kubectl("get", "configmaps", "--chunk-size=2", "-o", "name").split() == [f"configmap/{n}" for n in "abcde"]


def test_get_watches(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "first")
    watching = kubectl.start("get", "configmaps", "-w", "-o", "name")
    assert watching.stdout is not None
    try:
        assert watching.stdout.readline().strip() == "configmap/first"
        kubectl("create", "configmap", "second")
        assert watching.stdout.readline().strip() == "configmap/second"
        kubectl("label", "configmap", "first", "a=b")
        assert watching.stdout.readline().strip() == "configmap/first"
    finally:
        watching.kill()
        watching.communicate()


def test_a_table_can_be_watched(kubectl: Kubectl) -> None:
    watching = kubectl.start("get", "services", "-w")
    assert watching.stdout is not None
    try:
        kubectl("apply", "-f", "-", stdin=SERVICE)
        heading = watching.stdout.readline().split()
        if heading[0] != "NAME":  # "No resources found" is not printed by every version
            heading = watching.stdout.readline().split()
        assert heading[:2] == ["NAME", "TYPE"]
        assert watching.stdout.readline().split()[:2] == ["web", "ClusterIP"]
    finally:
        watching.kill()
        watching.communicate()


def test_apply_creates_then_leaves_alone_then_changes(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", stdin=SERVICE).split() == ["service/web", "created"]
    before = kubectl.json("get", "service", "web")
    assert kubectl("apply", "-f", "-", stdin=SERVICE).split() == ["service/web", "unchanged"]
    changed = SERVICE.replace("targetPort: 8080", "targetPort: 9090").replace("{app: web}\nspec", "{tier: front}\nspec")
    assert kubectl("apply", "-f", "-", stdin=changed).split() == ["service/web", "configured"]
    after = kubectl.json("get", "service", "web")
    assert after["spec"]["ports"][0]["targetPort"] == 9090
    assert after["metadata"]["labels"] == {"tier": "front"}
    assert after["spec"]["clusterIP"] == before["spec"]["clusterIP"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_apply_adds_and_removes_a_port_by_its_merge_key(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    two = SERVICE + "  - name: https\n    port: 443\n"
    kubectl("apply", "-f", "-", stdin=two)
    assert [p["port"] for p in kubectl.json("get", "svc", "web")["spec"]["ports"]] == [80, 443]
    kubectl("apply", "-f", "-", stdin=SERVICE)
    assert [p["port"] for p in kubectl.json("get", "svc", "web")["spec"]["ports"]] == [80]


def test_apply_refuses_an_unknown_field_and_an_invalid_object(kubectl: Kubectl) -> None:
    unknown = kubectl.fails("apply", "-f", "-", stdin=SERVICE.replace("selector:", "selektor:"))
    assert 'unknown field "spec.selektor"' in unknown
    invalid = kubectl.fails("apply", "-f", "-", stdin=SERVICE.replace("port: 80\n", "port: 80000\n"))
    assert 'The Service "web" is invalid: spec.ports[0].port: Invalid value: 80000' in invalid


def test_diff_shows_what_apply_would_change(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    done = kubectl.run("diff", "-f", "-", stdin=SERVICE.replace("8080", "9090"), check=False)
    assert done.returncode == 1, done.stderr
    assert "+    targetPort: 9090" in done.stdout


def test_a_dry_run_leaves_nothing(kubectl: Kubectl) -> None:
    printed = kubectl("apply", "--dry-run=server", "-f", "-", stdin=SERVICE)
    assert "created (server dry run)" in printed
    assert "NotFound" in kubectl.fails("get", "service", "web")


def test_create_twice_says_already_exists(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "x", "--from-literal=a=1")
    assert 'configmaps "x" already exists' in kubectl.fails("create", "configmap", "x")
    generated = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"many-"}}'
    names = {kubectl("create", "-f", "-", "-o", "name", stdin=generated).strip() for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("configmap/many-") for name in names)


def test_create_in_a_missing_namespace_is_not_found(kubectl: Kubectl) -> None:
    kubectl.namespace = "nowhere"
    assert 'namespaces "nowhere" not found' in kubectl.fails("create", "configmap", "x")


def test_edit_saves_what_the_editor_wrote(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/targetPort: 8080/targetPort: 7070/' \"$1\"\n")
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    done = kubectl.run("edit", "service", "web", env={"EDITOR": str(editor)})
    assert "service/web edited" in done.stdout
    assert kubectl.json("get", "service", "web")["spec"]["ports"][0]["targetPort"] == 7070


@pytest.mark.parametrize(
    ("type", "patch"),
    [
        ("json", '[{"op":"replace","path":"/spec/ports/0/targetPort","value":1234}]'),
        ("merge", '{"spec":{"ports":[{"name":"http","port":80,"targetPort":1234}]}}'),
        ("strategic", '{"spec":{"ports":[{"port":80,"targetPort":1234}]}}'),
    ],
)
def test_patch(kubectl: Kubectl, type: str, patch: str) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    assert "patched" in kubectl("patch", "service", "web", f"--type={type}", "-p", patch)
    (port,) = kubectl.json("get", "service", "web")["spec"]["ports"]
    assert port == {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 1234}
    assert "no change" in kubectl("patch", "service", "web", f"--type={type}", "-p", patch)


def test_a_status_patch_leaves_the_spec(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    patch = json.dumps({"spec": {"replicas": 9}, "status": {"replicas": 2, "readyReplicas": 1}})
    kubectl("patch", "deployment", "web", "--subresource=status", "--type=merge", "-p", patch)
    found = kubectl.json("get", "deployment", "web")
    assert (found["spec"]["replicas"], found["status"]["readyReplicas"]) == (2, 1)
    assert kubectl("get", "deployment", "web").splitlines()[1].split()[:2] == ["web", "1/2"]


def test_replace_with_an_old_version_conflicts(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "x", "--from-literal=a=1")
    old = kubectl("get", "configmap", "x", "-o", "json")
    kubectl("label", "configmap", "x", "new=label")
    error = kubectl.fails("replace", "-f", "-", stdin=old)
    assert "Error from server (Conflict)" in error
    assert (
        'Operation cannot be fulfilled on configmaps "x": the object has been modified; '
        "please apply your changes to the latest version and try again" in error
    )
    assert "replaced" in kubectl("replace", "-f", "-", stdin=kubectl("get", "configmap", "x", "-o", "json"))


def test_label_and_annotate(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "x")
    kubectl("label", "configmap", "x", "tier=front")
    assert "--overwrite is false" in kubectl.fails("label", "configmap", "x", "tier=back")
    kubectl("label", "configmap", "x", "tier=back", "--overwrite")
    kubectl("annotate", "configmap", "x", "note=hello")
    kubectl("label", "configmap", "x", "tier-")
    metadata = kubectl.json("get", "configmap", "x")["metadata"]
    assert "labels" not in metadata
    assert metadata["annotations"]["note"] == "hello"


def test_delete_by_name_by_label_and_all(kubectl: Kubectl) -> None:
    for name in ("a", "b", "c"):
        kubectl("create", "configmap", name)
    kubectl("label", "configmap", "b", "go=now")
    assert "deleted" in kubectl("delete", "configmap", "a")
    kubectl("delete", "configmap", "-l", "go=now")
    assert kubectl("get", "configmaps", "-o", "name").split() == ["configmap/c"]
    kubectl("delete", "configmaps", "--all")
    assert kubectl("get", "configmaps", "-o", "name").split() == []
    assert 'configmaps "a" not found' in kubectl.fails("delete", "configmap", "a")


def test_delete_waits_for_finalizers(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "x")
    kubectl("patch", "configmap", "x", "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/wait"]}}')
    kubectl("delete", "configmap", "x", "--wait=false")
    assert kubectl.json("get", "configmap", "x")["metadata"]["deletionTimestamp"]
    deleting = kubectl.start("delete", "configmap", "x")
    assert deleting.stdout is not None
    assert "deleted" in deleting.stdout.readline()  # asked for, and now it waits
    kubectl("patch", "configmap", "x", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    printed, _ = deleting.communicate(timeout=60)
    assert deleting.returncode == 0, printed
    assert "NotFound" in kubectl.fails("get", "configmap", "x")


def test_describe_shows_a_service_and_its_events(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=SERVICE)
    uid = kubectl.json("get", "service", "web")["metadata"]["uid"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "web.1", "namespace": kubectl.namespace},
        "involvedObject": {"kind": "Service", "namespace": kubectl.namespace, "name": "web", "uid": uid},
        "reason": "Tested",
        "message": "an event of this test",
        "type": "Normal",
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
        "source": {"component": "test"},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(event))
    printed = kubectl("describe", "service", "web")
    assert "Session Affinity:" in printed
    assert "an event of this test" in printed


def test_wait_for_a_condition_and_for_deletion(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    waiting = kubectl.start("wait", "deployment/web", "--for=condition=Available", "--timeout=60s")
    status = {"status": {"conditions": [{"type": "Available", "status": "True", "reason": "x", "message": ""}]}}
    kubectl("patch", "deployment", "web", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    printed, _ = waiting.communicate(timeout=60)
    assert "condition met" in printed
    gone = kubectl.start("wait", "deployment/web", "--for=delete", "--timeout=60s")
    kubectl("delete", "deployment", "web")
    printed, _ = gone.communicate(timeout=60)
    assert gone.returncode == 0, printed


def test_scale(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    generation = kubectl.json("get", "deployment", "web")["metadata"]["generation"]
    assert "scaled" in kubectl("scale", "deployment", "web", "--replicas=5")
    found = kubectl.json("get", "deployment", "web")
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (5, generation + 1)
    kubectl("scale", "deployment", "web", "--replicas=1", "--current-replicas=5")
    assert "xpected replicas" in kubectl.fails("scale", "deployment", "web", "--replicas=3", "--current-replicas=5")


def test_rollout_status_says_when_it_is_done(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    generation = kubectl.json("get", "deployment", "web")["metadata"]["generation"]
    following = kubectl.start("rollout", "status", "deployment/web", "--timeout=60s")
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
    status = {"status": {"observedGeneration": generation, **counts}}
    kubectl("patch", "deployment", "web", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    printed, _ = following.communicate(timeout=60)
    assert 'deployment "web" successfully rolled out' in printed


def test_expose_makes_a_service_of_a_deployment(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    spec = kubectl.json("get", "service", "web")["spec"]
    assert (spec["selector"], spec["ports"][0]["targetPort"]) == ({"app": "web"}, 8080)


def test_run_makes_a_pod(kubectl: Kubectl) -> None:
    assert "pod/one created" in kubectl("run", "one", "--image=host", "--", "sleep", "1")
    assert kubectl("get", "pods").splitlines()[1].split()[:3] == ["one", "0/1", "Pending"]
    kubectl("delete", "pod", "one")


def test_api_resources_and_versions(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources")
    for name in ("services", "endpointslices", "deployments", "ipaddresses", "servicecidrs"):
        assert f"\n{name} " in f"\n{resources}"
    assert "discovery.k8s.io/v1" in kubectl("api-versions").split()
    assert "v1.36.0+kubesvc-" in kubectl("version")


def test_explain(kubectl: Kubectl) -> None:
    printed = kubectl("explain", "service.spec.ports")
    assert "targetPort" in printed
    assert "nodePort" in printed


def test_a_kind_that_nothing_acts_on_is_warned_about(kubectl: Kubectl) -> None:
    policy = (
        '{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"p"},"spec":{"podSelector":{}}}'
    )
    assert "Warning: " in kubectl.run("apply", "-f", "-", stdin=policy).stderr


def test_raw_health_and_version(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/readyz").strip() == "ok"
    assert "[+]store ok" in kubectl("get", "--raw", "/livez?verbose")


def test_without_a_certificate_everything_is_unauthorized(server: ServerThread, kubectl: Kubectl) -> None:
    stranger = Kubectl(kubectl.binary, server.stranger)
    error = stranger.fails("get", "services", "--username=x", "--password=y")
    assert "Unauthorized" in error or "must be logged in" in error
