"""`kubesvc proxy` against an API server it knows nothing of, from another network namespace.

api 10.9.0.1 ── node1 10.9.0.2 (kubesvc proxy) ══ pod 10.244.0.1
"""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubesvc.api.errors import ApiError
from kubesvc.api.labels import NODE_LEASES, PROGRAMMED
from kubesvc.api.nodes import Node
from kubesvc.api.registry import ENDPOINT_SLICE, LEASE, NODE, SERVICE, SERVICE_CIDR
from kubesvc.cli.proxy import proxy
from kubesvc.kernel import netns
from kubesvc.proxy.standalone import Options, StandaloneError, configure
from support.apiserver import ServerThread
from support.box import KUBESVC, eventually
from support.net import DEADLINE, Lab, Namespace, ask, look

KUBE_PROXY_FLAGS = """
bind-address bind-address-hard-fail boot-id-file cleanup cluster-cidr config config-sync-period conntrack-max-per-core
conntrack-min conntrack-tcp-be-liberal conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established
conntrack-udp-timeout conntrack-udp-timeout-stream detect-local-mode feature-gates healthz-bind-address healthz-port
help hostname-override init-only iptables-localhost-nodeports iptables-masquerade-bit iptables-min-sync-period
iptables-sync-period ipvs-exclude-cidrs ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp ipvs-sync-period
ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout kube-api-burst kube-api-content-type kube-api-qps kubeconfig
log-flush-frequency log-json-info-buffer-size log-json-split-stream log-text-info-buffer-size log-text-split-stream
logging-format machine-id-file masquerade-all master metrics-bind-address metrics-port nodeport-addresses oom-score-adj
pod-bridge-interface pod-interface-name-prefix profiling proxy-mode proxy-port-range show-hidden-metrics-for-version v
version vmodule write-config-to
"""
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
            _, said = running.communicate(timeout=60)
            assert running.returncode == 0, said
            assert "Traceback" not in said, said
        finally:
            if running.poll() is None:
                running.kill()
                running.communicate()

    def fetch(self, url: str) -> str:
        def get() -> str:
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
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
        eventually(lambda: look(world.node, "10.96.0.10", 80)[0] == "pod", 60, "answered")
        assert ask(world.outside, "10.9.0.2", 30080)[0] == "pod"
        assert '"nodeEligible": true' in world.fetch("http://10.9.0.2:10256/healthz")
        assert world.fetch("http://127.0.0.1:10249/proxyMode") == "nftables"
        assert "kubeproxy_sync_proxy_rules_duration_seconds_count" in world.fetch("http://127.0.0.1:10249/metrics")
        assert "10.96.0.0/16" in world.node.run("nft", "list", "table", "inet", "kubesvc")
        extra = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/16"]}}
        world.server.run(world.server.session().create(SERVICE_CIDR, extra))
        eventually(lambda: "10.97.0.0/16" in world.node.run("nft", "list", "table", "inet", "kubesvc"), 60, "followed")
        assert "10.97.0.0/16" in world.node.ip("route", "show", "proto", "155")
        more = {"metadata": {"name": "more", "namespace": "default"}, "spec": {"clusterIP": "10.97.0.10", "ports": [
            {"port": 80, "targetPort": 8080}]}}  # fmt: skip
        world.server.run(world.server.session().create(SERVICE, more))
        slice_ = SLICE_TREE | {"metadata": {"name": "more-1", "namespace": "default", "labels": {
            "kubernetes.io/service-name": "more"}}}  # fmt: skip
        world.server.run(world.server.session().create(ENDPOINT_SLICE, slice_))
        eventually(lambda: look(world.node, "10.97.0.10", 80)[0] == "pod", 60, "answered from the new range")
        assert ask(world.node, "10.96.0.10", 80)[0] == "pod", "and from the old one"
        world.server.run(world.server.session().delete(SERVICE, "default", "more"))
        take_away = {"metadata": {"finalizers": None}}
        world.server.run(world.server.session().delete(SERVICE_CIDR, "", "more"))
        world.server.run(world.server.session().patch(SERVICE_CIDR, "", "more", take_away))
        eventually(lambda: "10.97" not in world.node.run("nft", "list", "table", "inet", "kubesvc"), 60, "taken back")
        assert "10.97" not in world.node.ip("route", "show", "proto", "155")
    assert ask(world.node, "10.96.0.10", 80)[0] == "pod"
    assert "10.96.0.0/16" in world.node.ip("route", "show", "proto", "155")
    world.node.run(
        "nft", "add table inet theirs; add chain inet theirs kubesvc { type filter hook forward priority 0; }"
    )
    world.node.ip("route", "add", "192.0.2.0/24", "dev", "eth0", "proto", "static")
    assert world.kubesvc("--cleanup").stdout == "the data plane is gone\n"
    assert world.node.run("nft", "list", "tables") == "table inet theirs\n"
    assert "chain kubesvc" in world.node.run("nft", "list", "ruleset")
    assert "192.0.2.0/24" in world.node.ip("route")
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
        eventually(lambda: look(world.outside, "192.0.2.5", 30080)[0] == "pod", 60, "answered")
        with pytest.raises(ConnectionRefusedError):
            ask(world.outside, "10.9.0.2", 30080)
        with pytest.raises(ConnectionRefusedError):
            ask(world.outside, "10.9.0.2", 10256)
        assert world.fetch("http://10.9.0.2:9999/proxyMode") == "nftables"
        world.node.ip("addr", "add", "192.0.2.6/32", "dev", "eth0")  # an address that moves here
        world.outside.ip("route", "add", "192.0.2.6/32", "via", "10.9.0.2")
        eventually(lambda: look(world.outside, "192.0.2.6", 30080)[0] == "pod", 60, "answered on the new address")
        world.node.ip("addr", "del", "192.0.2.5/32", "dev", "eth0")
        table = ("nft", "list", "table", "inet", "kubesvc")
        eventually(lambda: "192.0.2.5 ." not in world.node.run(*table), 60, "gone with its address")
        assert ask(world.outside, "192.0.2.6", 30080)[0] == "pod"
        listing = world.node.run("nft", "list", "table", "inet", "kubesvc")
        assert "10.96.0.0/12" in listing
        assert "ip saddr 10.244.0.0/16 return" in listing
    flags["--detect-local-mode"] = "NodeCIDR"
    with world.proxy(*(word for flag in flags.items() for word in flag)):
        eventually(lambda: "ip saddr 10.244.0.0/24 return" in world.node.run(*table), 60, "the Node's own")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--kubeconfig FILE is missing"),
        (("--kubeconfig", "/nonexistent"), "/nonexistent: can't be read as a kubeconfig"),
        (("--kubeconfig", "x", "--cluster-cidr", "10.0.0.0/99"), "expected CIDRs such as"),
        (("--kubeconfig", "x", "--nodeport-addresses", "primary,here"), "or primary, all, localhost"),
        (("--kubeconfig", "x", "--detect-local-mode", "ClusterCIDR"), "needs to know the pods' network"),
        (("--kubeconfig", "x", "--metrics-bind-address", "here"), "expected IP:PORT"),
        (("--conntrack-udp-timeout", "soon"), "'soon' is no duration; expected one such as 24h"),
        (("--config", "/etc/kube-proxy.yaml"), "--config is kube-proxy's, and not to be had here: give what the file"),
        (("--proxy-mode=ipvs",), "--proxy-mode=ipvs is not to be had here: nftables is the only one here"),
        (("--detect-local-mode=BridgeInterface",), "is not one of 'ClusterCIDR', 'NodeCIDR'"),
        (
            ("--iptables-sync-period=30s",),
            "--iptables-sync-period changes nothing here: changes are programmed at once",
        ),
        (("--profiling",), "--profiling changes nothing here"),
    ],
)
def test_a_wrong_flag_is_one_line(words: tuple[str, ...], said: str) -> None:
    """What is wrong, and what was expected; no traceback."""
    found = subprocess.run([str(KUBESVC), "proxy", *words], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode != 0
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_every_flag_of_kube_proxy_is_answered() -> None:
    """As `kube-proxy --help` of 1.36 lists them: each is one of ours, or is explained."""
    known = {"help"} | {option.removeprefix("--") for param in proxy.params for option in param.opts}
    assert known >= set(KUBE_PROXY_FLAGS.split())


def test_what_kube_proxy_asks_of_connection_tracking(world: World) -> None:
    """Its time-outs are set in this network namespace, to its defaults or to what a flag says; every source is
    masqueraded with --masquerade-all; the Lease tells what is in force when asked to."""
    world.server.run(world.server.session().create(NODE, NODE_TREE))
    flags = ("--masquerade-all", "--report-programmed", "--conntrack-udp-timeout-stream=2m30s", "--proxy-mode=nftables")
    with world.proxy("--hostname-override", "node1", *flags):
        eventually(lambda: look(world.node, "10.96.0.10", 80)[0] == "pod", 60, "answered")
        found = {
            name: world.node.run("sysctl", "-n", f"net.netfilter.nf_conntrack_{name}").strip()
            for name in ("tcp_timeout_established", "tcp_timeout_close_wait", "udp_timeout_stream")
        }
        assert found == {
            "tcp_timeout_established": "86400",
            "tcp_timeout_close_wait": "3600",
            "udp_timeout_stream": "150",
        }
        assert "goto pick-always-1" in world.node.run("nft", "list", "map", "inet", "kubesvc", "classes")
        draining = {"ready": False, "serving": True, "terminating": True}
        ending = SLICE_TREE | {"endpoints": [{"addresses": ["10.244.0.1"], "conditions": draining}]}
        patched = world.server.run(world.server.session().patch(ENDPOINT_SLICE, "default", "web-1", ending))
        assert isinstance(patched, dict)

        def reported() -> int:
            lease = world.server.run(world.server.session().get(LEASE, NODE_LEASES, "node1"))
            assert isinstance(lease, dict)
            return int(lease["metadata"]["annotations"][PROGRAMMED])

        revision = int(patched["metadata"]["resourceVersion"])
        eventually(lambda: (_or_none(reported) or 0) >= revision, 60, "reported")


def _or_none(get: Callable[[], int]) -> int | None:
    try:
        return get()
    except ApiError:
        return None


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
    ("words", "answering"),
    [
        ((), "10.9.0.2"),
        (("primary",), "10.9.0.2"),
        (("192.0.2.0/24",), "192.0.2.5"),
        (("primary", "192.0.2.0/24"), "10.9.0.2 192.0.2.5"),
        (("all",), "10.9.0.2 192.0.2.5"),
        (("localhost",), ""),
        (("primary", "localhost"), "10.9.0.2"),
        (("198.51.100.0/24",), ""),
    ],
    ids=str,
)
def test_node_ports_answer_on_the_addresses_that_were_asked_for(words: tuple[str, ...], answering: str) -> None:
    """CIDRs and words together; `localhost` adds the node's own, and is not an address for others."""
    node = msgspec.convert(NODE_TREE, Node)
    local = [ip_address(a) for a in ("127.0.0.1", "10.9.0.2", "192.0.2.5")]
    found = configure(Options(Path("x"), "node1", node_port_addresses=words), node, (), local)
    assert " ".join(map(str, found.node_port_ips())) == answering
    assert found.localhost_node_ports is ("localhost" in words)


@pytest.mark.parametrize(
    ("options", "by_node"),
    [
        ({}, True),
        ({"cluster_cidrs": (ip_network("10.244.0.0/16"),)}, False),
        ({"cluster_cidrs": (ip_network("10.244.0.0/16"),), "detect_local_mode": "NodeCIDR"}, True),
    ],
    ids=["nothing", "cluster", "both"],
)
def test_pods_of_this_node_are_known_by_the_best_that_is_known(options: dict[str, Any], by_node: bool) -> None:
    """The cluster's network can't tell them from other nodes' pods; the Node's can."""
    found = configure(Options(Path("x"), "node1", **options), msgspec.convert(NODE_TREE, Node), (), ())
    assert found.pods_by_node is by_node


def test_localhost_node_ports_come_and_go_with_the_flag(world: World) -> None:
    """127.0.0.1 and ::1, on this machine alone; the kernel's switch is on only while the rules that guard it are."""
    world.server.run(world.server.session().create(NODE, NODE_TREE))
    route_localnet = ("sysctl", "-n", "net.ipv4.conf.all.route_localnet")
    assert world.node.run(*route_localnet) == "0\n"
    with world.proxy("--hostname-override", "node1", "--localhost-nodeports"):
        for address in ("127.0.0.1", "::1"):
            eventually(lambda address=address: look(world.node, address, 30080) == ("pod", "10.9.0.2"), 60, address)
        assert world.node.run(*route_localnet) == "1\n"
        assert "127.0.0.0/8" in world.node.run("nft", "list", "chain", "inet", "kubesvc", "martians")
    with world.proxy("--hostname-override", "node1"):
        eventually(lambda: world.node.run(*route_localnet) == "0\n", 60, "switched off")
        eventually(lambda: "martians" not in world.node.run("nft", "list", "table", "inet", "kubesvc"), 60, "unguarded")
        assert ask(world.outside, "10.9.0.2", 30080)[0] == "pod"
        with pytest.raises(ConnectionRefusedError):
            ask(world.node, "::1", 30080)
    with world.proxy("--hostname-override", "node1", "--nodeport-addresses", "localhost"):
        eventually(lambda: look(world.node, "127.0.0.1", 30080)[0] == "pod", 60, "localhost alone")
        with pytest.raises(ConnectionRefusedError):
            ask(world.outside, "10.9.0.2", 30080)
    assert world.kubesvc("--cleanup").stdout == "the data plane is gone\n"
    assert world.node.run(*route_localnet) == "0\n"


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
