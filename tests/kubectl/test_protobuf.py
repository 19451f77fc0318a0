"""What kubectl sends in protobuf becomes the object that it shows beforehand, and that JSON would have made."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from support.kubectl import Kubectl

GENERATORS = {
    "deployment": "deployment x --image=host --port=80",
    "deployment-of-none": "deployment x --image=host --replicas=0",
    "deployment-of-two": "deployment x --image=host --replicas=2 -- sleep infinity",
    "configmap": "configmap x --from-literal=a=1 --from-literal=b=",
    "secret": "secret generic x --from-literal=password=hunter2",
    "clusterip": "service clusterip x --tcp=80:8080 --tcp=443:https",
    "headless": "service clusterip x --clusterip=None",
    "nodeport": "service nodeport x --tcp=80:8080",
    "loadbalancer": "service loadbalancer x --tcp=80",
    "externalname": "service externalname x --external-name=x.example",
    "serviceaccount": "serviceaccount x",
    "job": "job x --image=host -- true",
    "ingress": "ingress x --class=c --rule=a.example/p*=web:80 --rule=b.example/=web:http,tls=secret "
    "--default-backend=web:80 --annotation=a=b",
}
# set by the server, each time otherwise
OWN = (
    *("uid", "resourceVersion", "creationTimestamp", "namespace", "clusterIP", "clusterIPs", "nodePort"),
    *("batch.kubernetes.io/controller-uid", "controller-uid"),  # by which a Job tells its pods
)


def read(kubectl: Kubectl, name: str) -> Any:
    return json.loads(kubectl("get", name, "-o", "json"))


def without_own(tree: Any) -> Any:
    """Without what the server gives each object for itself."""
    if isinstance(tree, dict):
        return {key: without_own(value) for key, value in tree.items() if key not in OWN or value == "None"}
    return [without_own(item) for item in tree] if isinstance(tree, list) else tree


def missing(shown: Any, stored: Any, path: str = "") -> list[str]:
    """Paths of `shown` that are otherwise in `stored`; what is empty needn't be there."""
    if isinstance(shown, dict):
        held = stored if isinstance(stored, dict) else {}
        return [line for key, value in shown.items() for line in missing(value, held.get(key), f"{path}.{key}")]
    if isinstance(shown, list) and isinstance(stored, list) and len(shown) == len(stored):
        pairs = enumerate(zip(shown, stored, strict=True))
        return [line for index, (one, other) in pairs for line in missing(one, other, f"{path}[{index}]")]
    return [] if shown == stored or shown in (None, "") else [path]


@pytest.mark.parametrize("words", GENERATORS.values(), ids=GENERATORS.keys())
def test_what_is_created_is_what_a_dry_run_shows(kubectl: Kubectl, words: str) -> None:
    """By protobuf in one namespace and by JSON in another: the same object, with all that the dry run printed."""
    # options go before a "--" that begins a pod's command
    begin, dashes, command = words.partition(" -- ")
    shown = json.loads(
        kubectl("create", *begin.split(), "--dry-run=client", "-o", "json", *f"{dashes}{command}".split())
    )
    done = kubectl.run("create", *begin.split(), "-v=8", *f"{dashes}{command}".split())
    assert "application/vnd.kubernetes.protobuf" in done.stderr
    assert "created" in done.stdout
    name = f"{shown['kind']}/{shown['metadata']['name']}"
    stored = read(kubectl, name)
    assert missing(shown, stored) == []

    shown["metadata"].pop("namespace", None)
    kubectl.namespace = kubectl.make_namespace()
    kubectl("create", "-f", "-", stdin=json.dumps(shown))
    assert without_own(stored) == without_own(read(kubectl, name))


def test_a_deployment_of_none_has_none(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "x", "--image=host", "--replicas=0")
    assert read(kubectl, "deployment/x")["spec"]["replicas"] == 0
    kubectl("create", "deployment", "y", "--image=host")
    assert read(kubectl, "deployment/y")["spec"]["replicas"] == 1


def test_expose_scale_and_run(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "x", "--image=host", "--port=80")
    kubectl("expose", "deployment", "x", "--port=81", "--target-port=http", "--type=NodePort")
    service = read(kubectl, "service/x")
    assert service["spec"]["selector"] == {"app": "x"}
    assert service["spec"]["ports"][0]["port"] == 81
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    kubectl("scale", "deployment/x", "--replicas=3")
    assert read(kubectl, "deployment/x")["spec"]["replicas"] == 3
    kubectl("run", "one", "--image=host", "--restart=Never", "--env=A=b", "--labels=a=b")
    pod = read(kubectl, "pod/one")
    assert pod["spec"]["containers"][0]["env"] == [{"name": "A", "value": "b"}]
    assert pod["spec"]["restartPolicy"] == "Never"


def test_cordon_and_uncordon(kubectl: Kubectl) -> None:
    name = f"node-{kubectl.namespace}"
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    kubectl("create", "-f", "-", stdin=json.dumps(node))
    kubectl("cordon", name)
    assert read(kubectl, f"node/{name}")["spec"]["unschedulable"] is True
    kubectl("uncordon", name)
    assert not read(kubectl, f"node/{name}")["spec"].get("unschedulable")


def test_secrets_from_files_keep_every_byte(kubectl: Kubectl, tmp_path: Path) -> None:
    content = bytes(range(256))
    (tmp_path / "all").write_bytes(content)
    kubectl("create", "secret", "generic", "x", f"--from-file={tmp_path / 'all'}")
    kubectl("create", "configmap", "x", f"--from-file={tmp_path / 'all'}")
    for name, field in (("secret/x", "data"), ("configmap/x", "binaryData")):
        shown = kubectl("get", name, f"-o=jsonpath={{.{field}.all}}")
        assert base64.b64decode(shown) == content
