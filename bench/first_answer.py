"""From `kubesvc up` to the first HTTP answer through a Service by its DNS name, as a pod sees it.

Typed by a person: `kubesvc up --detach`, then `kubectl apply` of a Deployment, its Service and a client pod that asks
`http://hello/` until it gets an answer. Budget: 1.5 s for one node; kind needs 47 s, k3d 33 s.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import kubesvc.demo
from figures import show_median
from support.box import KUBESVC, BoxUnderTest, eventually, unique_name

RUNS = 5
SERVER = {"name": "c", "image": "host", "command": ["python3", "-m", "http.server", "8080"]}
PROBE = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}


def manifest() -> str:
    first = (Path(kubesvc.demo.__file__).parent / "client" / "first.py").read_text()
    client = {
        "name": "c",
        "image": "host",
        "command": ["python3", "-c", first, "http://hello.default.svc.cluster.local/"],
    }
    template = {"metadata": {"labels": {"app": "hello"}}, "spec": {"containers": [SERVER | {"readinessProbe": PROBE}]}}
    items = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hello"},
            "spec": {"selector": {"app": "hello"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "hello"},
            "spec": {"selector": {"matchLabels": {"app": "hello"}}, "template": template},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": {"containers": [client]}},
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def measure(nodes: int, directory: Path) -> tuple[float, float]:
    """Seconds until `up` returned, and until the first answer."""
    box = BoxUnderTest(unique_name(), directory)
    try:
        began = time.time()
        box.kubesvc("up", "--detach", "--nodes", str(nodes))
        ready = time.time() - began
        box.kubectl("apply", "-f", "-", input=manifest())
        answered = float(str(eventually(lambda: box.kubectl("logs", "client"))))
        return ready, answered - began
    finally:
        box.close()


def main() -> None:
    assert KUBESVC.exists()
    for nodes in (1, 3):
        with tempfile.TemporaryDirectory() as scratch:
            found = [measure(nodes, Path(scratch) / str(run)) for run in range(RUNS)]
        show_median(f"up_ready_{nodes}_nodes", [ready for ready, _ in found], "s")
        show_median(f"first_answer_{nodes}_nodes", [answer for _, answer in found], "s")


if __name__ == "__main__":
    main()
