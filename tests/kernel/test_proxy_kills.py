"""The proxy may die at any moment: what is in force answers, and the next one takes over."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from pathlib import Path

from kubesvc.api.registry import ENDPOINT_SLICE, NODE, SERVICE
from kubesvc.kernel import netns
from support.apiserver import ServerThread
from support.box import KUBESVC, eventually
from support.net import Lab, ask, look

KILLS = 8
NODE_TREE = {
    "metadata": {"name": "node1"},
    "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.9.0.2"}]},
}
SERVICE_TREE = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80, "targetPort": 8080}]},
}


def slice_tree(*pods: str) -> dict[str, object]:
    return {
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [pod], "conditions": {"ready": True}} for pod in pods],
    }


def test_kills_at_random_moments_break_no_connection(tmp_path: Path) -> None:
    """SIGKILL while it starts, while it programs, while it runs; endpoints change meanwhile; every request is
    answered, and the last proxy ends with what is true."""
    failed: list[str] = []
    answered: list[str] = []
    stop = threading.Event()
    with Lab("kills") as lab:
        api, node = lab.namespace("api"), lab.namespace("node")
        lab.link(api, "eth0", node, "eth0")
        api.ip("addr", "add", "10.9.0.1/24", "dev", "eth0")
        node.ip("addr", "add", "10.9.0.2/24", "dev", "eth0")
        for name, address in (("one", "10.244.0.1"), ("two", "10.244.0.2"), ("three", "10.244.0.3")):
            lab.serve(lab.pod(node, name, address), 8080, name)
        client = lab.pod(node, "client", "10.244.0.9")
        with netns.entered(api.path):
            server = ServerThread(tmp_path, "10.9.0.1")
        server.start()
        session = server.session()
        for kind, tree in ((NODE, NODE_TREE), (SERVICE, SERVICE_TREE), (ENDPOINT_SLICE, slice_tree("10.244.0.1"))):
            server.run(session.create(kind, tree))

        def start() -> subprocess.Popen[bytes]:
            flags = ["--hostname-override", "node1", "--kubeconfig", str(server.kubeconfig)]
            words = ["ip", "netns", "exec", node.name, str(KUBESVC), "proxy", *flags]
            return subprocess.Popen(words, stderr=subprocess.DEVNULL, env=os.environ)

        def load() -> None:
            while not stop.is_set():
                try:
                    answered.append(ask(client, "10.96.0.10", 80)[0])
                except OSError as error:
                    failed.append(repr(error))

        running = start()
        thread = threading.Thread(target=load)
        try:
            eventually(lambda: look(client, "10.96.0.10", 80)[0] == "one", 60, "answered")
            thread.start()
            for kill in range(KILLS):
                pods = [("10.244.0.1", "10.244.0.2"), ("10.244.0.2", "10.244.0.3"), ("10.244.0.3",)][kill % 3]
                server.run(session.patch(ENDPOINT_SLICE, "default", "web-1", slice_tree(*pods)))
                stop.wait(secrets.randbelow(1200) / 1000)  # the moment is the experiment
                running.send_signal(signal.SIGKILL)
                running.wait()
                running = start()
            server.run(session.patch(ENDPOINT_SLICE, "default", "web-1", slice_tree("10.244.0.2")))
            eventually(lambda: {look(client, "10.96.0.10", 80)[0] for _ in range(9)} == {"two"}, 60, "caught up")
            eventually(lambda: failed or len(answered) > 100, what="a hundred requests")
        finally:
            stop.set()
            thread.join()
            running.kill()
            running.wait()
            server.stop()
    assert failed == []
