"""Rollouts under 2,000 new connections a second, on three nodes: how many fail.

    PYTHONPATH=src:bench:tests python bench/proxy_rollout.py

The servers end at once on SIGTERM, without a goodbye. A connection counts as made when its request was answered whole.
Everything (three nodes, servers, client) shares the machine's cores; the rate that was reached is printed.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

from figures import show
from support.box import eventually, fresh_box

ROLLOUTS, RATE, REPLICAS = 3, 2000, 3

SERVER = r"""
import os, signal, socket
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
name = os.environ["HOSTNAME"].encode()
with socket.create_server(("", 8080), backlog=4096) as listening:
    while True:
        connection = listening.accept()[0]
        if connection.recv(16):
            connection.sendall(name)
        connection.close()
"""

CLIENT = r"""
import collections, json, os, socket, sys, time
target, rate = (sys.argv[1], 80), float(sys.argv[2])
seen, failed, made, behind = collections.Counter(), collections.Counter(), 0, 0.0
began = time.perf_counter()
open("/tmp/started", "w").close()
while made % 256 or not os.path.exists("/tmp/stop"):
    wait = began + made / rate - time.perf_counter()
    if wait > 0:
        time.sleep(wait)
    made += 1
    try:
        with socket.create_connection(target, timeout=5) as one:
            one.sendall(b"?")
            said = one.recv(64)
        seen[said.decode()] += 1
        if not said:
            failed["no answer"] += 1
    except OSError as error:
        failed[type(error).__name__] += 1
print(json.dumps({"seen": seen, "failed": failed, "rate": made / (time.perf_counter() - began)}))
"""


def manifest() -> str:
    container = {
        "name": "web",
        "image": "host",
        "command": ["python3", "-S", "-c", SERVER],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    client = {"containers": [{"name": "c", "image": "host", "command": ["sleep", "1000000"]}]}
    items = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": client},
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def main() -> None:
    show("load_before", os.getloadavg()[0], "processes")
    with tempfile.TemporaryDirectory() as directory, fresh_box(Path(directory) / "box") as box:
        box.up("--nodes", "3")
        box.kubectl("apply", "-f", "-", input=manifest())
        box.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        box.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
        address = box.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
        load = box.start_kubectl("exec", "client", "--", "python3", "-S", "-c", CLIENT, address, str(RATE))
        eventually(lambda: box.kubectl("exec", "client", "--", "ls", "/tmp/started"), what="the load begins")
        for _ in range(ROLLOUTS):
            time.sleep(1.0)  # a restart is told from the one before by its second
            box.kubectl("rollout", "restart", "deployment/web")
            box.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
        eventually(
            lambda: len(box.kubectl("get", "pods", "-l", "app=web", "-o", "name").split()) == REPLICAS,
            what="the old pods are gone",
        )
        box.kubectl("exec", "client", "--", "touch", "/tmp/stop")
        out, error = load.communicate(timeout=60)
        assert load.returncode == 0, error
    found = json.loads(out)
    show("rollout_servers", len(found["seen"]), "pods")
    show("rollout_rate", found["rate"], "1/s")
    show("rollout_connections", sum(found["seen"].values()), "connections")
    show("rollout_failed", sum(found["failed"].values()), f"connections {found['failed'] or ''}".rstrip())


if __name__ == "__main__":
    main()
