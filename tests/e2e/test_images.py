"""Images and volumes on a box: loaded, run on every node, listed, removed; data that outlives its pod."""

from __future__ import annotations

import json
import subprocess

import pytest

from support.box import KUBESVC, eventually, fresh_box
from support.images import Built, busybox, registry

WEB = Built(
    [busybox()],
    Entrypoint=["httpd", "-f", "-p", "8080"],
    Cmd=["-h", "/srv"],
    Env=["PATH=/bin"],
    User="web",
    WorkingDir="/srv",
)
STATEFUL = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: db
        image: shop/web:1
        imagePullPolicy: Never
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /srv}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    with fresh_box(tmp_path_factory.mktemp("b") / "box") as fresh:
        fresh.up("--nodes", "2")
        yield fresh


def test_a_loaded_image_runs_on_every_node_and_claims_keep_its_data(box):
    load = [str(KUBESVC), "image", "load", "--name", box.name, "--dir", str(box.directory), "-"]
    said = subprocess.run(load, input=WEB.docker_archive("shop/web:1"), capture_output=True, check=True, timeout=60)
    assert said.stdout.decode().startswith("Loaded docker.io/shop/web:1 (")
    assert "docker.io/shop/web   1     " in box.kubesvc("image", "list").stdout
    box.kubectl("apply", "-f", "-", input=STATEFUL)
    box.kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    nodes = {p["spec"]["nodeName"] for p in box.get("pods", "-l", "app=db")["items"]}
    assert nodes == {"node1", "node2"}
    assert len(list((box.directory / "images" / "layers").iterdir())) == 1
    for number in range(2):
        box.kubectl("exec", f"db-{number}", "--", "sh", "-c", f"echo {number} of $(id -u) > index.html")
    before = {p["metadata"]["uid"] for p in box.get("pods", "-l", "app=db")["items"]}
    box.kubectl("delete", "pod", "-l", "app=db")
    assert not before & {p["metadata"]["uid"] for p in box.get("pods", "-l", "app=db")["items"]}
    for number in range(2):  # there are none yet that could be waited for
        eventually(lambda n=number: box.kubectl("get", "pod", f"db-{n}", "-o", "name"), what=f"db-{number} again")
        box.kubectl("wait", "--for=condition=Ready", f"pod/db-{number}", "--timeout=60s")
    for number in range(2):
        asks = ("exec", f"db-{1 - number}", "--", "wget", "-qO-", f"http://db-{number}.db:8080/")
        answer = eventually(lambda asks=asks: box.kubectl(*asks), what=f"db-{number} by its name")
        assert answer == f"{number} of 1234\n"
    claims = box.get("pvc")["items"]
    assert [c["status"]["phase"] for c in claims] == ["Bound", "Bound"]
    assert {v["status"]["phase"] for v in box.get("pv")["items"]} == {"Bound"}

    in_use = box.kubesvc("image", "remove", "shop/web:1", check=False)
    assert "is in use by a container: delete its pod first" in in_use.stderr
    box.kubectl("delete", "statefulset", "db")
    box.kubectl("wait", "--for=delete", "pod", "-l", "app=db", "--timeout=60s")
    assert box.kubesvc("image", "remove", "shop/web:1").stdout == "Removed docker.io/shop/web:1\n"
    assert list((box.directory / "images" / "layers").iterdir()) == []

    assert len(list((box.directory / "volumes").iterdir())) == 2
    box.kubectl("delete", "pvc", "--all")
    eventually(lambda: not box.get("pv")["items"], what="the volumes removed")
    assert list((box.directory / "volumes").iterdir()) == []


def test_a_pod_pulls_from_a_registry_on_this_machine(box, tmp_path):
    """The nodes have no way out; the agent pulls on the machine's own network."""
    with registry(tmp_path) as served:
        name = served.push(WEB, "shop/web:2")
        box.kubectl("run", "web", f"--image={name}", "--port=8080")
        box.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        status = box.get("pod", "web")["status"]["containerStatuses"][0]
        assert status["imageID"].startswith(f"{served.host}/shop/web@sha256:")
        told = f'Successfully pulled image "{name}"'
        eventually(lambda: told in box.kubectl("describe", "pod", "web"), what=told)
        pulled = box.kubesvc("image", "pull", name)
        assert pulled.stdout.splitlines()[-1] == status["imageID"]
        missing = box.kubesvc("image", "pull", f"{served.host}/none:1", check=False)
        assert (missing.returncode, f"{served.host}/none:1: not found" in missing.stderr) == (1, True)
    box.kubectl("delete", "pod", "web", "--now")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("load", "/nonexistent"), "No such file or directory"),
        (("load", "/etc/passwd"), "not an archive of images"),
        (("pull", "Not A Name"), "invalid reference format"),
        (("remove", "none:1"), "there is no image none:1 here"),
    ],
    ids=["no file", "no archive", "no name", "not here"],
)
def test_what_cannot_be_done_says_why(box, words, says):
    found = box.kubesvc("image", *words, check=False)
    assert found.returncode != 0
    assert says in found.stderr
    assert json.dumps(found.stderr).count("\\n") <= 5
