"""The plugin, as another project uses it: the example is run by a pytest of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import kubesvc

EXAMPLE = Path(__file__).parents[2] / "examples/pytest"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "kubesvc.pytest_plugin", "--rootdir", str(folder), *words]
    # as here, where it may not be installed
    source = str(Path(kubesvc.__file__).parents[1])
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": source}
    return subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, timeout=240, check=False)


def test_the_example_passes_and_leaves_nothing(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "project")
    told = "def test_box(kubesvc_box):\n    open('box', 'w').write(kubesvc_box.name)\n"
    (tmp_path / "project/test_box.py").write_text(told)
    found = run(tmp_path / "project", "--kubesvc-nodes", "2", ".")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "4 passed" in found.stdout
    named = (tmp_path / "project/box").read_text()
    assert not Path("/run/kubesvc", named).exists()
    assert named not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_a_failure_says_what_was_wrong(tmp_path):
    (tmp_path / "test_wrong.py").write_text(
        "import pytest\n"
        "def test_invalid(kubesvc):\n"
        "    with pytest.raises(AssertionError, match='Service \"x\" is invalid'):\n"
        "        kubesvc.apply({'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': 'x'}, 'spec': {}})\n"
        "def test_never_ready(kubesvc):\n"
        "    pod = {'containers': [{'name': 'c', 'image': 'host', 'command': ['false']}]}\n"
        "    kubesvc.apply({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'p'}, 'spec': pod})\n"
        "    with pytest.raises(AssertionError, match='pod/p is.*t ready after 2 s'):\n"
        "        kubesvc.wait_ready('pod/p', timeout=2)\n"
        "def test_nobody_answers(kubesvc):\n"
        "    with pytest.raises(AssertionError, match='http://none/ from pod .*not known'):\n"
        "        kubesvc.curl('http://none/')\n"
    )
    found = run(tmp_path, ".")
    assert "3 passed" in found.stdout, found.stdout + found.stderr
