"""The plugin, as another project uses it: from an installed package, the example run by a pytest of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
EXAMPLE = SOURCE / "examples/pytest"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has kubesvc's wheel, built now; what that depends on is this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=SOURCE, capture_output=True, text=True, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv/bin/python"
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    subprocess.run([python, "-m", "compileall", "-q", place], check=True)  # as pip does
    Path(place, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """pytest finds the plugin by itself; nothing here names it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = subprocess.run(
        [python, "-c", "import kubesvc.pytest_plugin as p; print(p.__file__)"],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(python.parents[1])), where
    command = [str(python), "-m", "pytest", "-q", "--rootdir", str(folder), *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=480, check=False
    )


def test_the_example_passes_and_leaves_nothing(tmp_path, installed):
    shutil.copytree(EXAMPLE, tmp_path / "project")
    told = "def test_box(kubesvc_box):\n    open('box', 'w').write(kubesvc_box.name)\n"
    (tmp_path / "project/test_box.py").write_text(told)
    found = run(installed, tmp_path / "project", "--kubesvc-nodes", "2", ".")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "4 passed" in found.stdout
    named = (tmp_path / "project/box").read_text()
    assert not Path("/run/kubesvc", named).exists()
    assert named not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_a_failure_says_what_was_wrong(tmp_path, installed):
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
    found = run(installed, tmp_path, ".")
    assert "3 passed" in found.stdout, found.stdout + found.stderr


def test_what_a_controller_makes_later_is_waited_for_in_a_project_with_names_like_ours(tmp_path, installed):
    for name in ("dns", "click"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the project under test')\n")
    (tmp_path / "test_late.py").write_text(
        "import pytest\n"
        "from kubesvc.pytest_plugin import KubesvcError\n"
        "def test_late(kubesvc):\n"
        "    container = {'name': 'c', 'image': 'host', 'command': ['sleep', '1000']}\n"
        "    template = {'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [container]}}\n"
        "    selector = {'matchLabels': {'a': 'b'}}\n"
        "    spec = {'serviceName': 's', 'replicas': 2, 'selector': selector, 'template': template}\n"
        "    kubesvc.apply({'apiVersion': 'apps/v1', 'kind': 'StatefulSet', 'metadata': {'name': 's'}, 'spec': spec})\n"
        "    assert kubesvc.wait_ready('pod/s-1')['metadata']['name'] == 's-1'\n"
        "    with pytest.raises(KubesvcError, match='pod/s-9 .*not found'):\n"
        "        kubesvc.wait_ready('pod/s-9', timeout=1)\n"
    )
    found = run(installed, tmp_path, "-p", "no:cacheprovider", ".")
    assert "1 passed" in found.stdout, found.stdout + found.stderr
