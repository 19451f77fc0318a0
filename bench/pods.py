"""What pods cost: from create to Ready, a node full of them, and a box at rest.

Budgets: create to Ready p50 250 ms; 100 pods on one node 15 s; a node agent with 100 pods 120 MB; everything of a box
with 110 pods, 3 nodes and 200 Services at rest 5 % of one core.

CPU is what the kernel has accounted to a box's processes (monitors of containers too), and says more than the clock
where the machine does other things beside.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from pathlib import Path

from figures import show, show_percentiles
from support.box import BoxUnderTest, eventually, unique_name

ONE_BY_ONE, FULL, AT_REST, SERVICES, REST = 15, 100, 110, 200, 30.0
TICKS = os.sysconf("SC_CLK_TCK")


def pod(name: str, node: str = "") -> dict[str, object]:
    container = {"name": "c", "image": "host", "command": ["sleep", "1000000"]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], **({"nodeName": node} if node else {})}
    meta = {"name": name, "labels": {"app": name.rpartition("-")[0]}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def service(name: str) -> dict[str, object]:
    spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def apply(box: BoxUnderTest, *items: dict[str, object]) -> None:
    box.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)}))


def ready(box: BoxUnderTest, count: int) -> bool:
    return box.kubectl("get", "pods", "--no-headers").count("1/1") == count


def cpu(box: BoxUnderTest) -> float:
    """Seconds that all processes of the box have used so far: its own, and those that name its directory or state."""
    marks = (str(box.directory).encode(), f"/run/kubesvc/{box.name}".encode())
    own = set(box.pids().values())
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (
                int(entry.name) in own or any(mark in (entry / "cmdline").read_bytes() for mark in marks)
            ):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))  # its own, and its children's that have ended
        except OSError:
            continue
    return total / TICKS


def memory(pid: int) -> float:
    """MB that a process alone has: the supervisor's pages, which all share, count by their share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1000  # type: ignore[index]


def one_by_one(box: BoxUnderTest) -> list[float]:
    """Seconds from the API server's answer to `create` until the watch of kubectl shows Ready."""
    found = []
    for number in range(ONE_BY_ONE):
        apply(box, pod(f"one-{number}"))
        began = time.monotonic()
        box.kubectl("wait", "--for=condition=Ready", f"pod/one-{number}", "--timeout=30s")
        found.append(time.monotonic() - began)
    box.kubectl("delete", "pods", "--all", "--wait=true")
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        box = BoxUnderTest(unique_name(), Path(directory) / "box")
        try:
            box.up("--nodes", "3")
            show_percentiles("pod_create_to_ready", [seconds * 1000 for seconds in one_by_one(box)], "ms")
            began, used = time.monotonic(), cpu(box)
            apply(box, *(pod(f"full-{number}", "node1") for number in range(FULL)))
            eventually(lambda: ready(box, FULL), patience=120.0, what="a full node")
            show("pods_100_on_a_node", time.monotonic() - began, "s")
            show("pods_100_on_a_node_cpu", cpu(box) - used, "s")
            show("agent_memory_100_pods", memory(box.pids()["node1/node"]), "MB")
            box.kubectl("delete", "pods", "--all", "--wait=true")
            apply(box, *(service(f"rest-{number}") for number in range(SERVICES)))
            apply(box, *(pod(f"rest-{number}") for number in range(AT_REST)))
            eventually(lambda: ready(box, AT_REST), patience=120.0, what="pods at rest")
            time.sleep(5.0)  # what follows their start
            began, used = time.monotonic(), cpu(box)
            time.sleep(REST)  # the thing measured
            show("box_at_rest", 100 * (cpu(box) - used) / (time.monotonic() - began), "% of a core")
        finally:
            box.close()


if __name__ == "__main__":
    main()
