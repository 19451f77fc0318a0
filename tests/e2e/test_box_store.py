"""A box and its store: what `up` says when the file is no good, backups of a running box, the doctor's visit."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

from support.box import KUBESVC, BoxUnderTest, fresh_box, own_network

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: kept}
spec: {type: NodePort, ports: [{port: 80}]}
"""


def refused_up(box: BoxUnderTest) -> str:
    """What `kubesvc up` prints when it can't."""
    command = [str(KUBESVC), "up", "--detach", "--name", box.name, "--dir", str(box.directory)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    return found.stderr


def test_a_running_box_is_examined_backed_up_and_restored(tmp_path: Path) -> None:
    with fresh_box(tmp_path / "box") as box:
        box.up(*own_network())
        box.kubectl("apply", "-f", "-", input=SERVICE)
        kept = box.get("service", "kept")
        assert "All is well" in box.kubesvc("doctor").stdout
        copy = tmp_path / "copy"
        assert "objects and claims" in box.kubesvc("backup", str(copy)).stdout
        box.kubectl("delete", "service", "kept")
        running = box.kubesvc("restore", str(copy), check=False)
        assert running.returncode == 1
        assert f"box '{box.name}' is running: `kubesvc down --name {box.name}` first" in running.stderr
        box.interrupt()
        box.kubesvc("restore", str(copy))
        box.up()
        again = box.get("service", "kept")
        assert again["spec"] == kept["spec"]
        assert again["metadata"]["uid"] == kept["metadata"]["uid"]
        assert "All is well" in box.kubesvc("doctor").stdout


def test_up_names_a_file_it_cannot_use_and_what_to_do(tmp_path: Path) -> None:
    with fresh_box(tmp_path / "box") as box:
        box.up(*own_network())
        box.interrupt()
        objects = box.directory / "objects.db"
        whole = objects.read_bytes()
        objects.write_bytes(b"not what it was" * 1000)
        assert f"{objects}: file is not a database; is it a kubesvc database?" in refused_up(box)
        objects.write_bytes(whole)
        other = sqlite3.connect(objects, isolation_level=None)
        other.execute("UPDATE state SET number = 99 WHERE name = 'format'")
        assert f"{objects}: it is of format 99" in refused_up(box)
        other.execute("UPDATE state SET number = 2 WHERE name = 'format'")
        other.close()
        box.up()
