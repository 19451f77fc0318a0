"""A performance: three nodes, the shop, one scene after the other, and everything taken away again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from kubesvc.box.definition import find
from kubesvc.demo.show import NAMESPACE, WEB, Show
from kubesvc.demo.stage import BrokenPromise, Stage

HERE = Path(__file__).parent


def shop_directory() -> Path:
    """The shop's manifests: beside this module when installed, else in the repository's examples."""
    for candidate in (HERE / "shop", HERE.parents[2] / "examples" / "shop"):
        if candidate.is_dir():
            return candidate
    raise BrokenPromise("the shop's manifests are missing; they are in examples/shop of the repository")


def client_manifest() -> str:
    """The pod inside the cluster that the scenes ask from, with its tools in a ConfigMap."""
    tools = {path.name: path.read_text() for path in sorted((HERE / "client").glob("*.py"))}
    container = {
        "name": "client",
        "image": "host",
        "command": ["python3", "/tools/first.py", WEB],
        "volumeMounts": [{"name": "tools", "mountPath": "/tools"}],
    }
    items = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tools"}, "data": tools},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client"},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                "volumes": [{"name": "tools", "configMap": {"name": "tools"}}],
            },
        },
    ]
    return "\n".join(json.dumps(item) for item in items)


def perform(nodes: int, keep: bool) -> None:
    """The whole show. Raises BrokenPromise when something doesn't hold; cleans up unless `keep`."""
    name = "demo" if keep else f"demo-{os.getpid()}"
    directory = Path(tempfile.mkdtemp(prefix="kubesvc-demo-"))
    kubesvc = [str(Path(sys.executable).with_name("kubesvc"))]
    place = ["--name", name, "--dir", str(directory)]
    began = time.time()
    try:
        click.secho(f"$ kubesvc up --nodes {nodes} --detach", fg="cyan")
        if subprocess.run([*kubesvc, "up", *place, "--nodes", str(nodes), "--detach"], check=False).returncode != 0:
            raise BrokenPromise("the box did not start")
        _play(name, directory, began)
        if keep:
            click.echo(f"\nThe box is kept: export KUBECONFIG={directory / 'kubeconfig'}")
            click.echo(f"End it with: kubesvc down --purge --name {name} --dir {directory}")
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            click.echo()
            subprocess.run([*kubesvc, "down", *place, "--purge"], check=False)
            shutil.rmtree(directory, ignore_errors=True)


def _play(name: str, directory: Path, began: float) -> None:
    box = find(name, directory)
    assert box is not None
    stage = Stage(box.kubeconfig, NAMESPACE)
    show = Show(stage, box)
    stage.run("kubectl", "apply", "-f", os.path.relpath(shop_directory()))
    stage.kubectl("apply", "-f", "-", input=client_manifest(), quiet=True)
    stage.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s", quiet=True)
    scenes: list[tuple[str, Callable[[], None]]] = [
        ("A request through three tiers", show.three_tiers),
        ("Even load", show.spread),
        ("Failover: a pod dies under load", show.death_under_load),
        ("One address through rollout and scale", show.address_is_stable),
        ("NodePort: the same port on every node", show.node_ports),
        ("Headless: the pods' own addresses", show.headless),
        ("ExternalName: an alias for somebody else's name", show.external_name),
        ("LoadBalancer: an address for the outside", show.load_balancer),
        ("ClusterIP: for the inside only", show.inside_only),
    ]
    for title, scene in scenes:
        stage.title(title)
        scene()
    first = _first_answer(stage) - began
    stage.title("In short")
    for text in stage.kept:
        click.echo(f"  {click.style('✓', fg='green')} {text}")
    click.echo(
        f"\nFirst answer through a Service by its DNS name: {first:.2f} s after `kubesvc up` ({box.nodes} nodes)"
    )


def _first_answer(stage: Stage) -> float:
    """When the client pod, asking from its start on, first got an answer from `web`; seconds since the epoch."""
    for _ in range(100):
        lines = stage.kubectl("logs", "client", quiet=True).split()
        if lines:
            return float(lines[0])
        time.sleep(0.05)
    raise BrokenPromise("the client pod never got an answer")
