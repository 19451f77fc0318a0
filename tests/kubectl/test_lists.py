"""Real kubectl with files of many objects: Lists, kustomizations, and what `get -o yaml` printed, written back.

Each test's kubectl starts with an empty cache, so it asks for every document anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubesvc.api.meta import JSON
from support.kubectl import Kubectl

CONFIG_MAP: JSON = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "1"}}
SECRET: JSON = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "stringData": {"a": "1"}}
SERVICE: JSON = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]},
}
CONTAINERS = [
    {"name": "web", "image": "host", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
    {"name": "beside", "image": "host"},
]
DEPLOYMENT: JSON = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": CONTAINERS}},
    },
}
OBJECTS = (CONFIG_MAP, SECRET, SERVICE, DEPLOYMENT)
NAMES = ["configmap/web", "secret/web", "service/web", "deployment.apps/web"]


def listed(*objects: JSON) -> JSON:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def changed(tree: JSON, path: str, value: Any) -> JSON:
    """A copy of `tree` with the value at a path such as spec/ports/0/port set."""
    copy: JSON = json.loads(json.dumps(tree))
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    at: Any = copy
    for step in way:
        at = at[step]
    at[last] = value
    return copy


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_a_list_of_several_kinds_is_applied_and_deleted(kubectl: Kubectl, dump: Any) -> None:
    text = dump(listed(*OBJECTS))
    assert kubectl("apply", "-f", "-", stdin=text).splitlines() == [f"{name} created" for name in NAMES]
    again = kubectl("apply", "-f", "-", stdin=text).splitlines()
    assert [line for line in again if "secret" not in line] == [f"{n} unchanged" for n in NAMES if "secret" not in n]
    kubectl("delete", "-f", "-", stdin=text)
    assert kubectl("get", "configmaps,secrets,services,deployments", "-o", "name", "--ignore-not-found") == ""


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_a_list_of_several_kinds_is_created_and_replaced(kubectl: Kubectl, dump: Any) -> None:
    assert kubectl("create", "-f", "-", stdin=dump(listed(*OBJECTS))).splitlines() == [f"{n} created" for n in NAMES]
    replaced = dump(listed(changed(CONFIG_MAP, "data/a", "2"), changed(SERVICE, "spec/ports/0/port", 81)))
    assert kubectl("replace", "-f", "-", stdin=replaced).splitlines() == [
        "configmap/web replaced",
        "service/web replaced",
    ]
    assert kubectl.json("get", "configmap", "web")["data"] == {"a": "2"}
    assert [p["port"] for p in kubectl.json("get", "service", "web")["spec"]["ports"]] == [81, 443]


@pytest.mark.parametrize("verb", ["apply", "create", "replace"])
def test_an_unknown_field_in_a_list_is_refused(kubectl: Kubectl, verb: str) -> None:
    """By kubectl, from /openapi/v2: it checks Lists by itself, and leaves all else to the server."""
    unknown = changed(SERVICE, "spec/selektor", {"a": "b"})
    if verb == "replace":
        kubectl("create", "-f", "-", stdin=json.dumps(listed(SERVICE)))
    error = kubectl.fails(verb, "-f", "-", stdin=json.dumps(listed(unknown)))
    assert 'ValidationError(Service.spec): unknown field "selektor" in io.k8s.api.core.v1.ServiceSpec' in error
    error = kubectl.fails(verb, "-f", "-", stdin=json.dumps(unknown))
    assert 'strict decoding error: unknown field "spec.selektor"' in error


def test_an_unknown_field_in_a_list_can_be_let_through(kubectl: Kubectl) -> None:
    text = json.dumps(listed(changed(SERVICE, "spec/selektor", {"a": "b"})))
    done = kubectl.run("apply", "--validate=warn", "-f", "-", stdin=text)
    assert 'unknown field "spec.selektor"' in done.stderr
    assert "created" in done.stdout


def test_apply_merges_by_the_keys_of_the_document(kubectl: Kubectl) -> None:
    """kubectl makes its patch from /openapi/v2: what others added stays, what the file no longer has goes."""
    kubectl("apply", "-f", "-", stdin=json.dumps(listed(SERVICE, DEPLOYMENT)))
    kubectl("patch", "service", "web", "-p", '{"spec":{"ports":[{"name":"other","port":8080}]}}')
    env = {"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "C", "value": "3"}]}]}}}}
    kubectl("patch", "deployment", "web", "-p", json.dumps(env))
    service = changed(SERVICE, "spec/ports", [{"name": "https", "port": 443, "targetPort": 8443}])
    containers = changed(CONTAINERS[:1][0], "env", [{"name": "B", "value": "two"}])
    deployment = changed(DEPLOYMENT, "spec/template/spec/containers", [containers])
    done = kubectl.run("apply", "-f", "-", stdin=json.dumps(listed(service, deployment)))
    assert (done.stdout.splitlines(), done.stderr) == (
        ["service/web configured", "deployment.apps/web configured"],
        "",  # such as that the patch couldn't be made from the document
    )
    ports = kubectl.json("get", "service", "web")["spec"]["ports"]
    assert {p["name"]: p["targetPort"] for p in ports} == {"https": 8443, "other": 8080}
    (container,) = kubectl.json("get", "deployment", "web")["spec"]["template"]["spec"]["containers"]
    assert {e["name"]: e["value"] for e in container["env"]} == {"B": "two", "C": "3"}


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_get_printed_can_be_applied(kubectl: Kubectl, form: str) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps(listed(*OBJECTS)))
    kinds = "configmaps,secrets,services,deployments"
    text = kubectl("get", kinds, "-o", form)
    done = kubectl.run("apply", "-f", "-", stdin=text)
    assert {line.split()[0] for line in done.stdout.splitlines()} >= set(NAMES)
    assert "warning" not in done.stderr.lower()
    kubectl("delete", kinds, "--all")
    assert "service/web created" in kubectl("apply", "-f", "-", stdin=text)


def test_what_get_printed_of_every_kind_can_be_applied(kubectl: Kubectl) -> None:
    """Whatever the server makes by itself passes kubectl's own checks, made from /openapi/v2."""
    kubectl.namespace = "default"
    kinds = kubectl("api-resources", "--verbs=list,patch", "-o", "name").split()
    text = kubectl("get", ",".join(kinds), "-o", "yaml")
    found = {item["kind"] for item in yaml.safe_load(text)["items"]}
    assert {"Namespace", "Service", "EndpointSlice", "ServiceCIDR", "IPAddress"} <= found
    assert "service/kubernetes" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)


def test_what_get_printed_of_created_objects_can_be_applied(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "one", "--from-literal=a=1")
    kubectl("create", "configmap", "two", "--from-literal=a=1")
    text = kubectl("get", "configmaps", "-o", "yaml").replace("a: '1'", "a: '2'").replace('a: "1"', 'a: "2"')
    assert "configmap/one configured" in kubectl("apply", "-f", "-", stdin=text)
    assert kubectl.json("get", "configmap", "two")["data"] == {"a": "2"}


def test_a_kustomization_is_applied_and_deleted(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all([SERVICE, DEPLOYMENT]))
    kustomization = {
        "resources": ["objects.yaml"],
        "namePrefix": "my-",
        "labels": [{"pairs": {"part": "front"}}],
        "configMapGenerator": [{"name": "settings", "literals": ["a=1"]}],
        "patches": [{"patch": yaml.safe_dump(changed(DEPLOYMENT, "spec/replicas", 3))}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    printed = kubectl("apply", "-k", str(tmp_path))
    assert "service/my-web created" in printed
    assert "configmap/my-settings-" in printed
    assert kubectl.json("get", "deployment", "my-web")["spec"]["replicas"] == 3
    assert kubectl.json("get", "service", "my-web")["metadata"]["labels"] == {"part": "front"}
    assert "service/my-web unchanged" in kubectl("apply", "-k", str(tmp_path))
    assert kubectl.run("diff", "-k", str(tmp_path)).stdout == ""
    kubectl("delete", "-k", str(tmp_path))
    assert kubectl("get", "services,deployments", "-o", "name", "--ignore-not-found") == ""


def test_a_list_can_be_compared(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps(listed(CONFIG_MAP, SERVICE)))
    assert kubectl.run("diff", "-f", "-", stdin=json.dumps(listed(CONFIG_MAP, SERVICE))).stdout == ""
    other = listed(changed(CONFIG_MAP, "data/a", "2"), changed(SERVICE, "spec/ports/0/port", 81), SECRET)
    done = kubectl.run("diff", "-f", "-", stdin=json.dumps(other), check=False)
    assert done.returncode == 1, done.stderr
    assert '+  a: "2"' in done.stdout
    assert "+    port: 81" in done.stdout
    assert "+kind: Secret" in done.stdout
    assert "NotFound" in kubectl.fails("get", "secret", "web")


def test_a_list_is_applied_from_files_and_from_a_folder(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(listed(CONFIG_MAP, SECRET)))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump_all([listed(SERVICE), DEPLOYMENT]))
    assert kubectl("apply", "-f", str(tmp_path)).splitlines() == [f"{name} created" for name in NAMES]
    assert "configmap/web replaced" in kubectl("replace", "-f", str(tmp_path / "one.json"))
    assert "service/web configured (server dry run)" in kubectl(
        "apply", "--dry-run=server", "-f", "-", stdin=json.dumps(listed(changed(SERVICE, "spec/ports/0/port", 81)))
    )
    kubectl("delete", "-f", str(tmp_path))
