"""100 kills of the proxy at random moments, under traffic and changes: how many connections break.

    PYTHONPATH=src:bench:tests python bench/proxy_kills.py [KILLS]

    api 10.9.0.1 ── node 10.9.0.2 (kubesvc proxy, killed) ══ three server pods, client pod

New connections one after the other from two processes; twenty that stay open and are used all the time. Between kills
the endpoints change, always to some that serve.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import show
from kubesvc.api.registry import ENDPOINT_SLICE, NODE, SERVICE
from kubesvc.kernel import netns
from support.apiserver import ServerThread
from support.box import KUBESVC, eventually
from support.net import Lab, Namespace, ask

PODS = ("10.244.0.1", "10.244.0.2", "10.244.0.3")
VIP, LASTING = "10.96.0.10", 20
NODE_TREE = {
    "metadata": {"name": "node1"},
    "spec": {"podCIDRs": ["10.244.0.0/24"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.9.0.2"}]},
}
SERVICE_TREE = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "clusterIP": VIP,
        "ports": [{"name": "web", "port": 80, "targetPort": 8080}, {"name": "echo", "port": 7, "targetPort": 7}],
    },
}


def slice_tree(*pods: str) -> dict[str, object]:
    return {
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "echo", "port": 7, "protocol": "TCP"}],
        "endpoints": [{"addresses": [pod], "conditions": {"ready": True}} for pod in pods],
    }


class Child:
    """`work` in a namespace and a process of its own, until told to stop; what it returns."""

    def __init__(self, where: Namespace, work: Callable[[Callable[[], bool]], dict[str, int]]) -> None:
        came, self._stop = os.pipe()
        self._report, went = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._stop)
            netns.enter(where.path)
            os.write(went, json.dumps(work(lambda: not select.select([came], [], [], 0)[0])).encode())
            os._exit(0)
        os.close(came)
        os.close(went)

    def result(self) -> dict[str, int]:
        os.write(self._stop, b"!")  # not closed: children made later hold it too
        os.close(self._stop)
        with os.fdopen(self._report) as report:
            found: dict[str, int] = json.loads(report.read())
        os.waitpid(self.pid, 0)
        return found


def fresh(going: Callable[[], bool]) -> dict[str, int]:
    made = failed = 0
    while going():
        made += 1
        try:
            with socket.create_connection((VIP, 80), timeout=5) as one:
                failed += not one.recv(64)
        except OSError:
            failed += 1
    return {"made": made, "failed": failed}


def lasting(going: Callable[[], bool]) -> dict[str, int]:
    held = [socket.create_connection((VIP, 7), timeout=5) for _ in range(LASTING)]
    asked = broken = 0
    while going():
        for one in list(held):
            try:
                one.sendall(b"?")
                if one.recv(1) != b"?":
                    raise ConnectionResetError
                asked += 1
            except OSError:
                broken += 1
                held.remove(one)
        time.sleep(0.01)
    return {"asked": asked, "broken": broken}


def echo(going: Callable[[], bool]) -> dict[str, int]:
    """Everything that comes goes back."""
    poll = select.epoll()
    held: dict[int, socket.socket] = {}
    with socket.create_server(("", 7), backlog=512) as listening:
        poll.register(listening, select.EPOLLIN)
        while going():
            for number, _ in poll.poll(0.1):
                if number == listening.fileno():
                    one = listening.accept()[0]
                    held[one.fileno()] = one
                    poll.register(one, select.EPOLLIN)
                elif data := held[number].recv(64):
                    held[number].sendall(data)
                else:
                    held.pop(number).close()
    return {}


def main(kills: int) -> None:
    show("load_before", os.getloadavg()[0], "processes")
    with Lab("bench-kills") as lab, tempfile.TemporaryDirectory() as directory:
        api, node = lab.namespace("api"), lab.namespace("node")
        lab.link(api, "eth0", node, "eth0")
        api.ip("addr", "add", "10.9.0.1/24", "dev", "eth0")
        node.ip("addr", "add", "10.9.0.2/24", "dev", "eth0")
        pods = [lab.pod(node, f"p{n}", address) for n, address in enumerate(PODS)]
        client = lab.pod(node, "client", "10.244.0.9")
        servers = [Child(pod, echo) for pod in pods]
        for pod in pods:
            lab.serve(pod, 8080, "pod")
        with netns.entered(api.path):
            server = ServerThread(Path(directory), "10.9.0.1")
        server.start()
        session = server.session()
        for kind, tree in ((NODE, NODE_TREE), (SERVICE, SERVICE_TREE), (ENDPOINT_SLICE, slice_tree(*PODS))):
            server.run(session.create(kind, tree))

        def start() -> subprocess.Popen[bytes]:
            flags = ["--hostname-override", "node1", "--kubeconfig", str(server.kubeconfig)]
            words = ["ip", "netns", "exec", node.name, str(KUBESVC), "proxy", *flags]
            return subprocess.Popen(words, stderr=subprocess.DEVNULL)

        running = start()
        try:
            eventually(lambda: ask(client, VIP, 80)[0] == "pod", 20, "answered")
            load = [Child(client, fresh), Child(client, fresh), Child(client, lasting)]
            for kill in range(kills):
                server.run(session.patch(ENDPOINT_SLICE, "default", "web-1", slice_tree(*PODS[kill % 3 :])))
                time.sleep(secrets.randbelow(1000) / 1000)  # while it starts, programs, runs
                running.send_signal(signal.SIGKILL)
                running.wait()
                running = start()
            found = [one.result() for one in load]
        finally:
            running.kill()
            running.wait()
            server.stop()
            for one in servers:
                one.result()
    show("kills", kills, "kills")
    show("kills_new_connections", found[0]["made"] + found[1]["made"], "connections")
    show("kills_new_connections_failed", found[0]["failed"] + found[1]["failed"], "connections")
    show("kills_lasting_connections_used", found[2]["asked"], "times")
    show("kills_lasting_connections_broken", found[2]["broken"], f"of {LASTING} connections")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
