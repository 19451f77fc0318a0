"""Names while a node's DNS server is gone: slow at most, never lost."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from support.box import eventually

LOOK_UP = r"""
import socket, sys, time
while True:
    began = time.monotonic()
    try:
        found = sorted({a[4][0] for a in socket.getaddrinfo("kubernetes.default", 443, type=socket.SOCK_STREAM)})
        word = ",".join(found)
    except OSError as error:
        word = "FAILED " + str(error)
    print(f"{time.monotonic() - began:.3f} {word}", flush=True)
    time.sleep(0.05)
"""


class Lookups:
    """What the client has seen so far: (seconds, answer) of each look-up, in order."""

    def __init__(self, box, namespace: str) -> None:
        self._box, self._namespace = box, namespace

    def all(self) -> list[tuple[float, str]]:
        lines = self._box.kubectl("-n", self._namespace, "logs", "client").splitlines()
        return [(float(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]

    def wait_more(self, count: int, below: float = 5.9) -> None:
        """Wait until `count` more look-ups in a row took less than `below` seconds each."""
        before = len(self.all())

        def enough() -> bool:
            fresh = self.all()[before:]
            return len(fresh) >= count and all(seconds < below for seconds, _ in fresh[-count:])

        eventually(enough, what=f"{count} look-ups below {below} s each")

    def assert_none_failed(self) -> None:
        wrong = [line for line in self.all() if line[1] != "10.96.0.1"]
        assert not wrong, wrong
        assert max(seconds for seconds, _ in self.all()) < 10


@pytest.fixture
def client(three_nodes, namespace):
    """A pod on node1 that looks a name up in a loop, the way every program does."""
    container = {"name": "c", "image": "host", "command": ["python3", "-c", LOOK_UP]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {"nodeName": "node1", "containers": [container], "terminationGracePeriodSeconds": 0},
    }
    three_nodes.kubectl("-n", namespace, "apply", "-f", "-", input=json.dumps(pod))
    three_nodes.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/client", "--timeout=30s")
    lookups = Lookups(three_nodes, namespace)
    lookups.wait_more(3)
    return lookups


def dns_pid(box) -> int:
    """The process that is node1's DNS server, as the supervisor knows it; 0 while there is none."""
    status = json.loads((Path("/run/kubesvc") / box.name / "status.json").read_text())
    return next(process["pid"] for process in status["processes"] if process["name"] == "node1/dns")


def ready(box) -> bool:
    found = box.get("-n", "kube-system", "endpointslice", "kube-dns-node1")
    return found["endpoints"][0]["conditions"]["ready"]


def test_server_that_is_killed_loses_no_question(three_nodes, client):
    """kill -9: the supervisor holds the socket, where questions wait for the next process."""
    before = dns_pid(three_nodes)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: dns_pid(three_nodes) not in (0, before), what="a new DNS process")
    client.wait_more(20, below=1.0)
    client.assert_none_failed()


def test_server_that_hangs_is_replaced_by_another_nodes(three_nodes, client):
    """Stopped, it is taken out of kube-dns by its neighbour; its pods are answered elsewhere until it is back."""
    pid = dns_pid(three_nodes)
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: not ready(three_nodes), what="kube-dns-node1 not ready")
        client.wait_more(20, below=1.0)
        assert not ready(three_nodes)
        assert dns_pid(three_nodes) == pid
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: ready(three_nodes), what="kube-dns-node1 ready again")
    client.wait_more(20, below=1.0)
    client.assert_none_failed()
