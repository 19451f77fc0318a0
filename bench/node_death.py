"""From a node's death to its endpoints' removal from the kernels of the others.

All processes of one of three nodes stop at once, as with the machine's plug: nothing renews its Lease any more. Budget:
the grace period (`--node-grace`, here GRACE) and a second.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path

from figures import show, show_percentiles
from kubesvc.demo.programmed import RemovalWatch
from kubesvc.kernel import netns
from support.box import BoxUnderTest, eventually, fresh_box

GRACE = 4.0  # seconds
DEATHS = 5
OTHERS = ("node1", "node2")
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "real", "labels": {"app": "real"}},
    "spec": {"nodeName": "node3", "containers": [{"name": "c", "image": "host", "command": ["sleep", "infinity"]}]},
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "real"},
    "spec": {"selector": {"app": "real"}, "ports": [{"port": 80}]},
}


def processes(box: BoxUnderTest) -> list[int]:
    """pids of all that the supervisor keeps for node3."""
    return [pid for name, pid in box.pids().items() if name.startswith("node3/")]


def address(box: BoxUnderTest) -> str:
    """Of the ready pod on node3, once every other node sends to it."""
    for pod in box.get("pods", "-l", "app=real")["items"]:
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        if ready:
            found: str = pod["status"]["podIP"]
            tables = [box.inside(node, "nft", "list", "table", "inet", "kubesvc") for node in OTHERS]
            return found if all(f"{found} " in table for table in tables) else ""
    return ""


def death(box: BoxUnderTest) -> float:
    """Seconds until the last of the others had let the endpoint go."""
    gone = str(eventually(lambda: address(box), patience=60.0, what="a pod on node3"))
    stopped = processes(box)
    watch = RemovalWatch({node: netns.named(box.namespace(node)) for node in OTHERS})
    began = time.time()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        removed = watch.wait(IPv4Address(gone), GRACE + 30.0)
    finally:
        watch.close()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert set(removed) == set(OTHERS), removed
    return max(removed.values()) - began


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, fresh_box(Path(scratch) / "box") as box:
        box.kubesvc("up", "--detach", "--nodes", "3", "--node-grace", str(GRACE))
        box.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": [POD, SERVICE]}))
        found = [death(box) for _ in range(DEATHS)]
    show("node_death_grace", GRACE, "s")
    show_percentiles("node_death_to_removal", found, "s")


if __name__ == "__main__":
    main()
