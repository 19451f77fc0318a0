"""`kubesvc proxy` against an API server it knows nothing of, from another network namespace.

api 10.9.0.1 ── node1 10.9.0.2 (kubesvc proxy) ══ pod 10.244.0.1
"""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import pytest

from kubesvc.api.core import Node
from kubesvc.api.registry import ENDPOINT_SLICE, NODE, SERVICE, SERVICE_CIDR
from kubesvc.kernel import netns
from kubesvc.proxy.standalone import Options, StandaloneError, configure
from support.apiserver import ServerThread
from support.box import KUBESVC, eventually
from support.net import Lab, Namespace, ask

NODE_TREE = {
    "metadata": {"name": "node1"},
    "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.9.0.2"}]},
}
SERVICE_TREE = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "clusterIP": "10.96.0.10",
        "type": "NodePort",
        "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}],
    },
}
SLICE_TREE = {
    "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    "endpoints": [{"addresses": ["10.244.0.1"], "conditions": {"ready": True}, "nodeName": "node1"}],
}


@dataclass
class World:
    node: Namespace
    outside: Namespace
    server: ServerThread

    def kubesvc(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self.node.name, str(KUBESVC), "proxy", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    @contextmanager
    def proxy(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A proxy in the node's namespace; it must end by itself on SIGTERM."""
        command = ["ip", "netns", "exec", self.node.name, str(KUBESVC), "proxy", "--kubeconfig"]
        running = subprocess.Popen(
            [*command, str(self.server.kubeconfig), *words], stderr=subprocess.PIPE, text=True, env=os.environ
        )
        try:
            yield running
            running.send_signal(signal.SIGTERM)
            _, said = running.communicate(timeout=20)
            assert running.returncode == 0, said
            assert "Traceback" not in said, said
        finally:
            if running.poll() is None:
                running.kill()
                running.communicate()

    def fetch(self, url: str) -> str:
        def get() -> str:
            with urllib.request.urlopen(url, timeout=5) as answer:
                said: str = answer.read().decode()
                return said

        return str(self.node.call(get))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Lab("guest") as lab:
        api, node = lab.namespace("api"), lab.namespace("node")
        lab.link(api, "eth0", node, "eth0")
        api.ip("addr", "add", "10.9.0.1/24", "dev", "eth0")
        node.ip("addr", "add", "10.9.0.2/24", "dev", "eth0")
        lab.serve(lab.pod(node, "pod", "10.244.0.1"), 8080, "pod")
        with netns.entered(api.path):
            server = ServerThread(tmp_path, "10.9.0.1")
        server.start()
        try:
            for kind, tree in ((SERVICE, SERVICE_TREE), (ENDPOINT_SLICE, SLICE_TREE)):
                server.run(server.session().create(kind, tree))
            yield World(node, api, server)
        finally:
            server.stop()


def test_it_runs_alone_against_any_api(world: World) -> None:
    """It waits for its Node, serves cluster IPs and node ports, tells its health, ends on SIGTERM leaving the data
    plane in force, and takes it away when asked."""
    with world.proxy("--hostname-override", "node1"):
        world.server.run(world.server.session().create(NODE, NODE_TREE))
        eventually(lambda: ask(world.node, "10.96.0.10", 80)[0] == "pod", 20, "answered")
        assert ask(world.outside, "10.9.0.2", 30080)[0] == "pod"
        assert '"nodeEligible": true' in world.fetch("http://10.9.0.2:10256/healthz")
        assert world.fetch("http://127.0.0.1:10249/proxyMode") == "nftables"
        assert "kubeproxy_sync_proxy_rules_duration_seconds_count" in world.fetch("http://127.0.0.1:10249/metrics")
        assert "10.96.0.0/16" in world.node.run("nft", "list", "table", "inet", "kubesvc")
        extra = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/16"]}}
        world.server.run(world.server.session().create(SERVICE_CIDR, extra))
        eventually(lambda: "10.97.0.0/16" in world.node.run("nft", "list", "table", "inet", "kubesvc"), 20, "followed")
        assert "10.97.0.0/16" in world.node.ip("route", "show", "proto", "155")
        more = {"metadata": {"name": "more", "namespace": "default"}, "spec": {"clusterIP": "10.97.0.10", "ports": [
            {"port": 80, "targetPort": 8080}]}}  # fmt: skip
        world.server.run(world.server.session().create(SERVICE, more))
        slice_ = SLICE_TREE | {"metadata": {"name": "more-1", "namespace": "default", "labels": {
            "kubernetes.io/service-name": "more"}}}  # fmt: skip
        world.server.run(world.server.session().create(ENDPOINT_SLICE, slice_))
        eventually(lambda: ask(world.node, "10.97.0.10", 80)[0] == "pod", 20, "answered from the new range")
        assert ask(world.node, "10.96.0.10", 80)[0] == "pod", "and from the old one"
        world.server.run(world.server.session().delete(SERVICE, "default", "more"))
        take_away = {"metadata": {"finalizers": None}}
        world.server.run(world.server.session().delete(SERVICE_CIDR, "", "more"))
        world.server.run(world.server.session().patch(SERVICE_CIDR, "", "more", take_away))
        eventually(lambda: "10.97" not in world.node.run("nft", "list", "table", "inet", "kubesvc"), 20, "taken back")
        assert "10.97" not in world.node.ip("route", "show", "proto", "155")
    assert ask(world.node, "10.96.0.10", 80)[0] == "pod"
    assert "10.96.0.0/16" in world.node.ip("route", "show", "proto", "155")
    assert world.kubesvc("--cleanup").stdout == "the data plane is gone\n"
    assert "kubesvc" not in world.node.run("nft", "list", "tables")
    assert world.node.ip("route", "show", "proto", "155") == ""
    assert world.kubesvc("--cleanup").stdout == "there was no data plane of kubesvc here\n"


def test_flags_say_what_the_api_is_not_asked_for(world: World) -> None:
    """Ranges, where node ports answer, and where nothing is served."""
    world.server.run(world.server.session().create(NODE, NODE_TREE))
    world.node.ip("addr", "add", "192.0.2.5/32", "dev", "eth0")
    world.outside.ip("route", "add", "192.0.2.5/32", "via", "10.9.0.2")
    flags = {
        "--hostname-override": "NODE1",
        "--cluster-cidr": "10.244.0.0/16",
        "--service-cluster-ip-range": "10.96.0.0/12",
        "--nodeport-addresses": "192.0.2.0/24",
        "--healthz-bind-address": "",
        "--metrics-bind-address": "10.9.0.2:9999",
    }
    with world.proxy(*(word for flag in flags.items() for word in flag)):
        eventually(lambda: ask(world.outside, "192.0.2.5", 30080)[0] == "pod", 20, "answered")
        with pytest.raises(ConnectionRefusedError):
            ask(world.outside, "10.9.0.2", 30080)
        with pytest.raises(ConnectionRefusedError):
            ask(world.outside, "10.9.0.2", 10256)
        assert world.fetch("http://10.9.0.2:9999/proxyMode") == "nftables"
        listing = world.node.run("nft", "list", "table", "inet", "kubesvc")
        assert "10.96.0.0/12" in listing
        assert "ip saddr 10.244.0.0/16 return" in listing


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--kubeconfig FILE is missing"),
        (("--kubeconfig", "/nonexistent"), "/nonexistent: can't be read as a kubeconfig"),
        (("--kubeconfig", "x", "--cluster-cidr", "10.0.0.0/99"), "expected CIDRs such as"),
        (("--kubeconfig", "x", "--metrics-bind-address", "here"), "expected IP:PORT"),
    ],
)
def test_a_wrong_flag_is_one_line(words: tuple[str, ...], said: str) -> None:
    """What is wrong, and what was expected; no traceback."""
    found = subprocess.run([str(KUBESVC), "proxy", *words], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode != 0
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_the_nodes_addresses_come_first() -> None:
    """The Node says which address is primary; others of the machine count for --nodeport-addresses alone."""
    node = msgspec.convert(NODE_TREE, Node)
    local = [ip_address(a) for a in ("127.0.0.1", "10.9.0.2", "192.0.2.5", "fe80::1")]
    options = Options(Path("x"), "node1")
    found = configure(options, node, (ip_network("10.96.0.0/16"),), local)
    assert [str(ip) for ip in found.node_port_ips()] == ["10.9.0.2"]
    assert [str(ip) for ip in found.node_ips] == ["10.9.0.2", "127.0.0.1", "192.0.2.5"]
    assert [str(n) for n in found.pod_cidrs] == ["10.244.0.0/24"]


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (NODE_TREE | {"status": {}}, "has no InternalIP"),
        (NODE_TREE | {"spec": {}}, "give the pods' network with --cluster-cidr"),
    ],
)
def test_a_node_that_says_too_little_is_an_error_with_its_remedy(tree: dict[str, object], said: str) -> None:
    """Which object, and what to give instead."""
    with pytest.raises(StandaloneError, match=said):
        configure(Options(Path("x"), "node1"), msgspec.convert(tree, Node), (), ())
