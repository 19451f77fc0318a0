"""`kopf`: an operator that reconciles a custom resource, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.box import BoxUnderTest, _die_with_parent, eventually

OPERATOR = Path(__file__).with_name("operator_example.py")


@pytest.fixture
def operator(box: BoxUnderTest, namespace: str, tmp_path: Path) -> Iterator[Path]:
    log = tmp_path / "operator.log"
    command = [sys.executable, "-m", "kopf", "run", "--standalone", f"--namespace={namespace}", str(OPERATOR)]
    with log.open("w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=_die_with_parent,
                                   env=os.environ | {"KUBECONFIG": str(box.kubeconfig)})  # fmt: skip
    yield log
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0, log.read_text()


def test_an_operator_reconciles_a_custom_resource(
    box: BoxUnderTest, operator: Path, namespace: str, database: dict
) -> None:
    """Created, changed, and deleted: its child follows, its status is written, its finalizer is honoured."""
    box.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(database))

    def phase() -> str:
        return box.kubectl("get", "db", "main", "-n", namespace, "-o", "jsonpath={.status.phase}")

    def data() -> dict:
        return box.get("configmap", "main-settings", "-n", namespace)["data"]

    eventually(lambda: data() == {"engine": "postgres", "replicas": "1"}, 60, f"{operator.read_text()}")
    eventually(lambda: phase() == "Ready", 60, "status")
    assert box.get("db", "main", "-n", namespace)["metadata"]["finalizers"] == ["example.com/operator"]
    box.kubectl("scale", "db/main", "-n", namespace, "--replicas=3")
    eventually(lambda: data()["replicas"] == "3", 60, "the change")
    box.kubectl("delete", "db", "main", "-n", namespace, "--timeout=60s")
    eventually(lambda: "main-settings" not in box.kubectl("get", "cm", "-n", namespace), 60, "its child goes with it")


def test_a_namespace_takes_custom_resources_with_it(box: BoxUnderTest, namespace: str, database: dict) -> None:
    box.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(database))
    box.kubectl("delete", "namespace", namespace, "--timeout=60s")
    assert "No resources" in box.kubectl("get", "db", "-n", namespace, check=False)
