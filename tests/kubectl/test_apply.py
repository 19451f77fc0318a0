"""Server-side apply as people use it: every kubectl that is installed here, against a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.kubectl import Kubectl

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web:1", "env": [{"name": "A", "value": "1"}]}]},
        },
    },
}


def deployment(**spec: Any) -> str:
    return json.dumps(DEPLOYMENT | {"spec": DEPLOYMENT["spec"] | spec})


def service(*ports: dict[str, Any], **metadata: Any) -> str:
    spec = {"selector": {"app": "web"}, "ports": list(ports)}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", **metadata}, "spec": spec})


def apply(kubectl: Kubectl, manifest: str, *options: str) -> str:
    return kubectl("apply", "--server-side", *options, "-f", "-", stdin=manifest)


def managers(kubectl: Kubectl, what: str) -> set[tuple[str, str]]:
    """{(manager, operation)}"""
    entries = kubectl.json("get", what, "--show-managed-fields")["metadata"]["managedFields"]
    return {(entry["manager"], entry["operation"]) for entry in entries}


def test_apply_creates_then_changes_then_leaves_alone(kubectl: Kubectl) -> None:
    """An apply that changes nothing writes nothing."""
    assert apply(kubectl, service({"port": 80})) == "service/web serverside-applied\n"
    created = kubectl.json("get", "service/web", "--show-managed-fields")
    assert {(e["manager"], e["operation"]) for e in created["metadata"]["managedFields"]} == {("kubectl", "Apply")}
    apply(kubectl, service({"port": 80}))
    assert kubectl.json("get", "service/web", "--show-managed-fields") == created
    apply(kubectl, service({"port": 80}, {"port": 443, "name": "https"}, labels={"a": "b"}).replace(
        '{"port": 80}', '{"port": 80, "name": "http"}'))  # fmt: skip
    changed = kubectl.json("get", "service/web")
    assert [port["port"] for port in changed["spec"]["ports"]] == [80, 443]
    assert changed["spec"]["clusterIP"] == created["spec"]["clusterIP"], "what the server chose stays"


def test_a_conflict_names_who_and_what_and_force_takes_it(kubectl: Kubectl) -> None:
    """In upstream's words, with kubectl's own advice below."""
    kubectl("create", "-f", "-", stdin=deployment())
    refused = kubectl.fails("apply", "--server-side", "-f", "-", stdin=deployment(replicas=3))
    assert 'Apply failed with 1 conflict: conflict with "kubectl-create" using apps/v1: .spec.replicas' in refused
    assert "--force-conflicts" in refused
    assert kubectl.json("get", "deployment/web")["spec"]["replicas"] == 2
    apply(kubectl, deployment(replicas=3), "--force-conflicts")
    assert kubectl.json("get", "deployment/web")["spec"]["replicas"] == 3
    assert ("kubectl", "Apply") in managers(kubectl, "deployment/web")


def test_two_managers_share_what_they_agree_on(kubectl: Kubectl) -> None:
    """A field goes when the last who applied it lets go, and several conflicts come as a list."""
    labels = {"shared": "yes"}
    apply(kubectl, service({"port": 80}, labels=labels), "--field-manager=one")
    apply(kubectl, service({"port": 80}, labels=labels | {"own": "two"}), "--field-manager=two")
    refused = kubectl.fails("apply", "--server-side", "--field-manager=three", "-f", "-",
                            stdin=service({"port": 80, "name": "x"}, labels={"shared": "no", "own": "no"}))  # fmt: skip
    assert "Apply failed with 3 conflicts: " in refused
    assert 'conflicts with "one":\n- .metadata.labels.shared' in refused
    assert 'conflicts with "two":\n- .metadata.labels.own\n- .metadata.labels.shared' in refused
    apply(kubectl, service({"port": 80}), "--field-manager=one")
    assert kubectl.json("get", "service/web")["metadata"]["labels"] == labels | {"own": "two"}
    apply(kubectl, service({"port": 80}), "--field-manager=two")
    assert "labels" not in kubectl.json("get", "service/web")["metadata"]


def test_a_client_side_apply_becomes_a_server_side_one(kubectl: Kubectl) -> None:
    """kubectl hands its old ownership over: afterwards it can remove what it had once applied the other way."""
    kubectl("apply", "-f", "-", stdin=deployment())
    assert managers(kubectl, "deployment/web") == {("kubectl-client-side-apply", "Update")}
    env = [{"name": "B", "value": "2"}]
    containers = [{"name": "web", "image": "web:2", "env": env}]
    template = DEPLOYMENT["spec"]["template"] | {"spec": {"containers": containers}}
    apply(kubectl, deployment(template=template))
    found = kubectl.json("get", "deployment/web", "--show-managed-fields")
    owners = {(e["manager"], e["operation"]) for e in found["metadata"]["managedFields"]}
    assert owners == {("kubectl", "Apply"), ("kubectl-last-applied", "Apply")}, "the annotation is kubectl's own affair"
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["env"]) == ("web:2", env)


def test_diff_and_dry_run_say_what_an_apply_would_do(kubectl: Kubectl) -> None:
    apply(kubectl, deployment())
    before = kubectl.json("get", "deployment/web", "--show-managed-fields")
    shown = kubectl.run("diff", "--server-side", "-f", "-", stdin=deployment(replicas=5), check=False)
    assert shown.returncode == 1, shown.stderr
    assert "-  replicas: 2" in shown.stdout
    assert "+  replicas: 5" in shown.stdout
    assert "serverside-applied (server dry run)" in apply(kubectl, deployment(replicas=5), "--dry-run=server")
    assert kubectl.json("get", "deployment/web", "--show-managed-fields") == before
    same = kubectl.run("diff", "--server-side", "-f", "-", stdin=deployment())
    assert same.stdout == ""


def test_scaling_takes_the_replicas_from_who_applied_them(kubectl: Kubectl) -> None:
    apply(kubectl, deployment())
    kubectl("scale", "deployment/web", "--replicas=4")
    refused = kubectl.fails("apply", "--server-side", "-f", "-", stdin=deployment())
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' in refused
    without = json.loads(deployment())
    del without["spec"]["replicas"]
    apply(kubectl, json.dumps(without))
    assert kubectl.json("get", "deployment/web")["spec"]["replicas"] == 4


def test_a_deployment_is_no_scale_to_apply(kubectl: Kubectl) -> None:
    """kubectl sends the manifest as it is, and can't send a Scale: other clients do."""
    apply(kubectl, deployment())
    refused = kubectl.fails("apply", "--server-side", "--subresource=scale", "-f", "-", stdin=deployment(replicas=4))
    assert "(apps/v1) does not match the expected API version (autoscaling/v1)" in refused
    assert kubectl.json("get", "deployment/web")["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (service({"port": 80}, managedFields=[{"manager": "x"}]), "metadata.managedFields must be nil"),
        (service({"port": 80}, {"port": 80}), 'duplicate entries for key [port=80,protocol="TCP"]'),
        (service({"port": 80}).replace("selector", "selektor"), 'unknown field "spec.selektor"'),
        (service({"port": 80}, resourceVersion="1"), "resourceVersion should not be set on objects to be created"),
    ],
)
def test_what_cannot_be_applied_is_said(kubectl: Kubectl, manifest: str, said: str) -> None:
    assert said in kubectl.fails("apply", "--server-side", "-f", "-", stdin=manifest)
