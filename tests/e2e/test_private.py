"""What is secret stays so: on disk for its owner alone, and in no log."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.box import BoxUnderTest, fresh_box

WORD = "open-sesame-4711"
MARKS = (b"PRIVATE KEY", b"client-key-data", WORD.encode(), base64.b64encode(WORD.encode()), b"SQLite format 3")
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "reader"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "c",
                "image": "host",
                "command": ["sleep", "infinity"],
                "env": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}}],
                "volumeMounts": [{"name": "hidden", "mountPath": "/hidden"}],
            }
        ],
        "volumes": [{"name": "hidden", "secret": {"secretName": "hidden"}}],
    },
}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[BoxUnderTest]:

    with fresh_box(tmp_path / "box") as fresh:
        yield fresh


def reachable(root: Path) -> Iterator[Path]:
    """The files under `root` that another user could open, if they may get as far as `root` itself."""
    mode = root.lstat().st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        yield root
    elif stat.S_ISDIR(mode) and mode & 0o011:
        for inside in root.iterdir():
            yield from reachable(inside)


def secret_in(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return any(mark in data for mark in MARKS)


def test_nothing_secret_is_readable_by_others_or_logged(box: BoxUnderTest, tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    box.up("--audit-log", str(audit))
    box.kubectl("create", "secret", "generic", "hidden", f"--from-literal=word={WORD}")
    box.kubectl("apply", "-f", "-", input=json.dumps(POD))
    box.kubectl("wait", "pod/reader", "--for=condition=Ready", "--timeout=60s")
    assert WORD in box.kubectl("exec", "reader", "--", "sh", "-c", "cat /hidden/word; env")
    box.kubectl("patch", "secret", "hidden", "-p", json.dumps({"stringData": {"word": f"{WORD}x"}}))
    box.kubectl("create", "secret", "generic", "hidden", f"--from-literal=word={WORD}", check=False)  # refused
    box.kubesvc("backup", str(tmp_path / "backup"))
    roots = (box.directory, Path("/run/kubesvc") / box.name, tmp_path / "backup", audit)
    kept = {
        path for root in (box.directory, tmp_path / "backup") for path in [root, *root.rglob("*")] if path.is_file()
    }
    known = {path.name for path in kept if secret_in(path)}
    assert {"ca.key", "node1-node.pem", "kubeconfig"} <= known  # the marks do find what is secret
    assert [str(path) for root in roots for path in reachable(root) if secret_in(path)] == []
    private = [path for path in kept if secret_in(path)]
    assert [str(path) for path in private if path.stat().st_mode & 0o077] == []
    logs = [*(box.directory / "logs").rglob("*"), audit, *Path("/run/kubesvc", box.name).rglob("*.log")]
    assert audit.stat().st_mode & 0o777 == 0o600
    assert len(logs) > 4
    assert [str(log) for log in logs if log.is_file() and secret_in(log)] == []
    events = [json.loads(line) for line in audit.read_text().rpartition("\n")[0].splitlines()]
    assert {e["verb"] for e in events if e.get("objectRef", {}).get("name") == "hidden"} >= {"get", "patch"}
