"""What a box costs that has nothing to do: the processor time of its processes, with pods, nodes and Services in place.

    PYTHONPATH=src:bench:tests python bench/idle.py [PODS [NODES [SERVICES]]]

Counted are the supervisor and all that it keeps, not the pods themselves. Budget: 5 % of one core in all.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from figures import show
from support.box import BoxUnderTest, eventually, fresh_box

SETTLE, WATCHED = 15.0, 60.0  # seconds
TICK = os.sysconf("SC_CLK_TCK")


def used(pid: int) -> float:
    """Seconds of processor time, in user and kernel, of a process and of what it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def fill(box: BoxUnderTest, pods: int, services: int) -> None:
    """One Deployment for every ten Services, pods spread over the nodes; returns when all are ready."""
    groups = max(1, services // 10)
    items: list[object] = []
    for group in range(groups):
        labels = {"app": f"app{group}"}
        container = {"name": "c", "image": "host", "command": ["sleep", "infinity"]}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        replicas = pods // groups + (group < pods % groups)
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        items.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"app{group}"}, "spec": spec})
    for number in range(services):
        spec = {"selector": {"app": f"app{number % groups}"}, "ports": [{"port": 80, "targetPort": 8080}]}
        items.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"svc{number}"}, "spec": spec})
    box.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def ready() -> bool:
        found = box.get("deployments")["items"]
        return sum(item["status"].get("readyReplicas", 0) for item in found) == pods

    eventually(ready, patience=300.0, what=f"{pods} pods")


def main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    pods, nodes, services = (*given, *(110, 3, 200)[len(given) :])
    with tempfile.TemporaryDirectory() as scratch, fresh_box(Path(scratch) / "box") as box:
        box.kubesvc("up", "--detach", "--nodes", str(nodes))
        fill(box, pods, services)
        time.sleep(SETTLE)
        status = box.status()
        watched = {process["name"]: process["pid"] for process in (status["supervisor"], *status["processes"])}
        before, began = {name: used(pid) for name, pid in watched.items()}, time.monotonic()
        time.sleep(WATCHED)
        passed = time.monotonic() - began
        shares = {name: 100 * (used(pid) - before[name]) / passed for name, pid in watched.items()}
        for name, share in shares.items():
            show(f"idle_{name.replace('/', '_')}", share, "%")
        show(f"idle_{pods}_pods_{nodes}_nodes_{services}_services", sum(shares.values()), "% of a core")


if __name__ == "__main__":
    main()
