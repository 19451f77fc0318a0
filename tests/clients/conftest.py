"""One box for all clients, with a pod to talk to, and a definition that operators reconcile."""

from __future__ import annotations

import gc
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.box import BoxUnderTest, fresh_box
from support.custom import DATABASE

PAGE = "served by a pod\n"
WEB = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "host",
                "command": ["sh", "-c"],
                "args": [
                    f"mkdir /tmp/www && cd /tmp/www && printf '{PAGE}' > index.html && exec python3 -m http.server 8080"
                ],
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            }
        ]
    },
}


HERE = Path(__file__).parent
# What these libraries leave behind, and remarks of their own about versions.
THEIRS = ("ignore:unclosed:ResourceWarning", "ignore:Kubernetes version:UserWarning",
          "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            for theirs in THEIRS:
                item.add_marker(pytest.mark.filterwarnings(theirs))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a client left unclosed is found now, and not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoxUnderTest]:
    with fresh_box(tmp_path_factory.mktemp("box") / "box") as running:
        running.up("--nodes", "1")
        running.kubectl("apply", "-f", "-", input=json.dumps(DATABASE))
        running.kubectl("wait", "--for=condition=Established", "crd/databases.example.com", "--timeout=60s")
        running.kubectl("apply", "-f", "-", input=json.dumps(WEB))
        running.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        yield running


@pytest.fixture
def kubeconfig(box: BoxUnderTest) -> str:
    return str(box.kubeconfig)


@pytest.fixture
def namespace(box: BoxUnderTest) -> str:
    """A namespace of the test's own; it goes with the box."""
    name = f"clients-{secrets.token_hex(3)}"
    box.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def database() -> dict:
    return {"apiVersion": "example.com/v1", "kind": "Database", "metadata": {"name": "main"},
            "spec": {"engine": "postgres"}}  # fmt: skip
