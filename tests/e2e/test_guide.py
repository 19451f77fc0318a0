"""The guide tells the truth: its commands are run in order, and what they print is compared."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.box import KUBESVC, NEWEST_KUBECTL, BoxUnderTest, eventually, fresh_box

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
PAGES = sorted(page.name for page in GUIDE.glob("*.md") if page.name != "README.md")
OWN_BOX = {"network.md": ("--nodes", "2", "--ip-family", "dual")}  # page -> the options of its box
STARTS_ONE = ("desk-cloud.md",)
"""Pages that start a box themselves."""
LOOKS = re.compile(r"kubectl (exec|describe|get endpointslices)|kubesvc status|for |python3|curl|test ")
"""What looks at how something came about: a reader who is too early looks again."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of a page's code blocks."""
    return BLOCK.findall((GUIDE / page).read_text())


def commands(block: str) -> list[tuple[str, list[str]]]:
    """(command, lines it prints) of a console block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def matches(expected: list[str], printed: str) -> bool:
    """Whether the output is as the page says; `…` stands for anything, runs of spaces for each other."""
    parts = [re.escape(line).replace("…", ".*") for line in expected]
    pattern = "\n".join(re.sub(r"(\\ )+", r"\\s+", part) for part in parts)
    return re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL) is not None


class Reader:
    """Somebody who types what the page says, in one shell session's directory and variables."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.environment = environment
        self.remembered = ""  # assignments made by earlier commands

    def read(self, page: str) -> None:
        for language, text in blocks(page):
            if language == "yaml":
                name = text.splitlines()[0].removeprefix("# ")
                (self.directory / name).write_text(text)
            elif language == "console":
                for command, expected in commands(text):
                    if LOOKS.match(command):
                        eventually(lambda c=command, e=expected: self.type(page, c, e) is None)  # type: ignore[misc]
                    else:
                        self.type(page, command, expected)

    def type(self, page: str, command: str, expected: list[str]) -> None:
        ran = subprocess.run(
            ["bash", "-c", f"{self.remembered}\n{command}"],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, f"{page}: $ {command}\n{ran.stdout}{ran.stderr}"
        if re.match(r"\w+=", command):
            self.remembered += command + "\n"
        assert matches(expected, ran.stdout), f"{page}: $ {command}\nprinted:\n{ran.stdout}\nexpected:\n" + "\n".join(
            expected
        )


@pytest.mark.parametrize("page", STARTS_ONE)
def test_every_command_of_a_page_with_its_own_box_does_what_the_page_says(page, tmp_path):
    """Under a name of the test's, which the page doesn't say."""
    with fresh_box(tmp_path / "box") as box:
        path = f"{KUBESVC.parent}:{NEWEST_KUBECTL.parent}:{os.environ['PATH']}"
        own = {"KUBESVC_NAME": box.name, "KUBESVC_DIR": str(box.directory), "KUBECONFIG": str(box.kubeconfig)}
        Reader(tmp_path, os.environ | own | {"PATH": path}).read(page)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in (*OWN_BOX, *STARTS_ONE)])
def test_every_command_of_the_page_does_what_the_page_says(page, three_nodes, namespace, tmp_path):
    """Each page in a namespace of its own, after the guide's first page."""
    read(page, three_nodes, namespace, tmp_path)


@pytest.mark.parametrize("page", OWN_BOX)
def test_a_page_about_another_box_tells_the_truth_too(page, tmp_path):
    """On the box that the page names."""
    options = OWN_BOX[page]
    assert f"`kubesvc up {' '.join(options)}`" in (GUIDE / page).read_text()
    with fresh_box(tmp_path / "box") as box:
        box.up(*options)
        read(page, box, "default", tmp_path)


def read(page: str, box: BoxUnderTest, namespace: str, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes(box.kubeconfig.read_bytes())
    path = f"{NEWEST_KUBECTL.parent}:{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": path, "KUBESVC_DIR": str(box.directory)}
    reader = Reader(tmp_path, environment)
    reader.type("", f"kubectl config set-context --current --namespace={namespace} >/dev/null", [])
    reader.read("README.md")
    reader.read(page)
