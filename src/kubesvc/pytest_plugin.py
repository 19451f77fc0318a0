"""A pytest plugin: a box for the session, a namespace for each test, and what tests do with them.

    def test_web_answers(kubesvc):
        kubesvc.apply("web.yaml")
        kubesvc.wait_ready("deployment/web")
        assert kubesvc.curl("http://web/").status == 200

pytest loads it in every project where kubesvc is installed: until the fixture is asked for it imports pytest alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

CLIENT = "kubesvc-client"  # the pod that `curl` asks from
_FETCH = """
import json, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers=json.loads(sys.argv[2]))
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=float(sys.argv[3]))
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode(errors="replace"), dict(answer.headers)]))
"""


class KubesvcError(AssertionError):
    """A command failed, or what was waited for didn't come; the message is the command's own."""


class Answer(msgspec.Struct, frozen=True):
    """What `curl` got."""

    status: int
    text: str
    headers: dict[str, str]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kubesvc", "a Kubernetes for Services")
    group.addoption("--kubesvc-nodes", type=int, default=1, help="Nodes of the session's box.  [default: 1]")
    parser.addini("kubesvc_up", "More options for `kubesvc up`.", type="args", default=[])
    parser.addini("kubesvc_images", "Archives of images to load into the box.", type="paths", default=[])


class Box:
    """The session's box."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    def run(self, *words: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A `kubesvc` command on the box: `run("get", "nodes")`. Raises KubesvcError if it fails and `check`."""
        depth = 2 if words[0] in ("image", "node") else 1
        where = ["--name", self.name, "--dir", str(self.directory)]
        command = [*_kubesvc(), *words[:depth], *where, *words[depth:]]
        found = subprocess.run(command, input=input, capture_output=True, text=True, timeout=300, check=False)
        if check and found.returncode != 0:
            raise KubesvcError(f"kubesvc {' '.join(words)}: {(found.stderr or found.stdout).strip()}")
        return found


class Cluster:
    """One test's namespace in the box. Objects that name no namespace go there."""

    def __init__(self, box: Box, namespace: str, kubeconfig: Path) -> None:
        self.box, self.namespace = box, namespace
        self.kubeconfig = kubeconfig  # a file whose current context is this namespace: for kubectl and client libraries

    def apply(self, manifest: str | Path | dict[str, Any]) -> str:
        """Apply a file (a Path, or the name of one), the text of a manifest, or one object as a dictionary."""
        if isinstance(manifest, dict):
            manifest = json.dumps(manifest)
        if isinstance(manifest, Path) or ("\n" not in manifest and Path(manifest).exists()):
            return self.box.run("apply", "-n", self.namespace, "-f", str(manifest)).stdout
        return self.box.run("apply", "-n", self.namespace, "-f", "-", input=str(manifest)).stdout

    def get(self, what: str) -> dict[str, Any]:
        """An object, KIND/NAME, or all of a KIND, as kubectl's JSON."""
        found: dict[str, Any] = json.loads(self.box.run("get", "-n", self.namespace, "-o", "json", what).stdout)
        return found

    def delete(self, what: str) -> None:
        """Delete KIND/NAME, and wait until it is gone."""
        self.box.run("delete", "-n", self.namespace, what)

    def logs(self, pod: str) -> str:
        """The log of POD, or of one pod of KIND/NAME."""
        return self.box.run("logs", "-n", self.namespace, pod).stdout

    def exec(self, pod: str, *command: str) -> str:
        """What a command printed in POD, or in one pod of KIND/NAME. Raises KubesvcError if it fails."""
        return self.box.run("exec", "-n", self.namespace, pod, "--", *command).stdout

    def wait_ready(self, what: str, timeout: float = 60.0) -> dict[str, Any]:
        """Wait until a pod is Ready, a workload has all its replicas, or a Service an endpoint; gives the object.

        An object that isn't there yet is waited for too: a controller may be about to make it."""
        deadline = time.monotonic() + timeout
        while True:
            asked = self.box.run("get", "-n", self.namespace, "-o", "json", what, check=False)
            found = json.loads(asked.stdout) if asked.returncode == 0 else {}
            if found and self._is_ready(found):
                return found
            if time.monotonic() > deadline or not (found or "(NotFound)" in asked.stderr):
                if not found:
                    raise KubesvcError(f"{what} isn't ready after {timeout:g} s: {asked.stderr.strip()}")
                pods = self.box.run("get", "pods", "-n", self.namespace, check=False).stdout
                raise KubesvcError(f"{what} isn't ready after {timeout:g} s: {json.dumps(found.get('status'))}\n{pods}")
            time.sleep(0.1)

    def _is_ready(self, found: dict[str, Any]) -> bool:
        status, spec = found.get("status") or {}, found.get("spec") or {}
        match found["kind"]:
            case "Deployment" | "StatefulSet" | "ReplicaSet":
                current = status.get("observedGeneration") == found["metadata"].get("generation")
                wanted = spec.get("replicas", 1)
                updated = status.get("updatedReplicas", wanted if found["kind"] == "ReplicaSet" else 0)
                return bool(current and status.get("readyReplicas", 0) == wanted == updated)
            case "DaemonSet":
                return bool(status.get("numberReady", 0) == status.get("desiredNumberScheduled", -1))
            case "Job":
                return any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions") or [])
            case "Service":
                name = f"kubernetes.io/service-name={found['metadata']['name']}"
                words = ("get", "endpointslices", "-n", self.namespace, "-l", name, "-o", "json")
                slices = json.loads(self.box.run(*words).stdout).get("items", [])
                return any((e.get("conditions") or {}).get("ready") for s in slices for e in s.get("endpoints") or [])
            case _:
                return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])

    def curl(self, url: str, *, pod: str = "", headers: dict[str, str] | None = None, timeout: float = 5.0) -> Answer:
        """GET `url` from a pod of image `host`: `pod`, or one made for it. Raises KubesvcError without an answer."""
        if not pod:
            pod = CLIENT
            container = {"name": "client", "image": "host", "command": ["sleep", "infinity"]}
            spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
            self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec})
            self.wait_ready(f"pod/{pod}")
        words = ("python3", "-c", _FETCH, url, json.dumps(headers or {}), str(timeout))
        found = self.box.run("exec", "-n", self.namespace, pod, "--", *words, check=False)
        if found.returncode != 0:
            why = found.stderr.strip().splitlines()
            raise KubesvcError(f"{url} from pod {pod}: {next((x for x in reversed(why) if 'rror' in x), why)}")
        status, text, got = json.loads(found.stdout)
        return Answer(status, text, got)


def _kubesvc() -> list[str]:
    # -P: a package of the project under test may have the name of one of ours.
    return [sys.executable, "-P", "-c", "from kubesvc.cli.main import main; main()"]


@pytest.fixture(scope="session")
def kubesvc_box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A box that runs for the session; gone, with all it put on this machine, at its end."""
    if os.geteuid() != 0:
        pytest.fail("kubesvc needs root, for network namespaces: run `sudo -E pytest`")
    with tempfile.TemporaryDirectory(prefix="kubesvc-") as folder:
        box = Box(f"pytest-{os.getpid()}-{secrets.token_hex(2)}", Path(folder) / "box")
        nodes = str(request.config.getoption("--kubesvc-nodes"))
        more = request.config.getini("kubesvc_up")
        where = ["--name", box.name, "--dir", str(box.directory)]
        # In the foreground: it ends with us, however we end.
        up = subprocess.Popen(
            [*_kubesvc(), "up", *where, "--nodes", nodes, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_die_with_parent,
        )
        try:
            _wait_until_up(up)
            for archive in request.config.getini("kubesvc_images"):
                box.run("image", "load", str(archive))
            yield box
        finally:
            up.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                up.communicate(timeout=60)
            box.run("down", "--purge", check=False)


def _wait_until_up(up: subprocess.Popen[str]) -> None:
    said = []
    assert up.stdout is not None
    for line in up.stdout:
        said.append(line)
        if "The box runs until" in line:
            return
    pytest.fail(f"kubesvc up ended with {up.wait()}:\n{''.join(said)}")


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG


@pytest.fixture
def kubesvc(kubesvc_box: Box, tmp_path: Path) -> Iterator[Cluster]:
    """The box, with a namespace of the test's own, which goes with the test."""
    namespace = f"test-{secrets.token_hex(4)}"
    tree = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    kubesvc_box.run("apply", "-f", "-", input=json.dumps(tree))
    file = tmp_path / "kubeconfig"
    text = kubesvc_box.kubeconfig.read_text()
    file.touch(mode=0o600)
    file.write_text(_in_namespace(text, namespace))
    try:
        yield Cluster(kubesvc_box, namespace, file)
    finally:
        kubesvc_box.run("delete", "--no-wait", f"namespace/{namespace}", check=False)


def _in_namespace(text: str, namespace: str) -> str:
    import yaml

    tree = yaml.safe_load(text)
    for context in tree["contexts"]:
        context["context"]["namespace"] = namespace
    return str(yaml.safe_dump(tree))
