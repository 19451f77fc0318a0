"""Nodes with announcers on one segment, the API server there, and a client behind a router that may speak BGP (FRR).

    client 10.8.0.2 ── 10.8.0.1 router 10.9.0.1, fd00:9::1 ──┬── node1 10.9.0.11, fd00:9::11
                                (the API server is here)     └── node2 10.9.0.12, fd00:9::12

A node serves load-balancer addresses on its loopback, in the proxy's place, and its kernel answers no ARP for them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kubesvc.api.labels import SERVICE_NAME
from kubesvc.api.meta import JSON
from kubesvc.api.registry import ENDPOINT_SLICE, IP_ADDRESS_POOL, NODE, SERVICE, Kind
from kubesvc.kernel import netns
from support.apiserver import ServerThread
from support.box import eventually
from support.net import Lab, Namespace, ask, run

FRR = Path("/usr/lib/frr")
POOL = ["10.7.0.0/28", "fd00:7::/124"]


class Announcer:
    """`kubesvc loadbalancer announce` of one node, as a process of its own."""

    def __init__(self, node: Namespace, name: str, kubeconfig: Path, directory: Path, *words: str) -> None:
        program = "from kubesvc.cli.main import main; main()"
        command = [sys.executable, "-c", program, "loadbalancer", "announce", "--kubeconfig", str(kubeconfig)]
        command += ["--node-name", name, "--runtime-directory", str(directory / "bgp"), *words]
        self.log = directory / f"{name}.log"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", node.name, *command],
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send the signal and wait."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60)


class Network:
    """What `network` makes. `nodes` maps a name to its namespace."""

    def __init__(self, lab: Lab, server: ServerThread, router: Namespace, client: Namespace, directory: Path) -> None:
        self.lab, self.server, self.router, self.client, self.directory = lab, server, router, client, directory
        self.nodes: dict[str, Namespace] = {}
        self.stack = ExitStack()

    def create(self, kind: Kind, name: str, spec: JSON, **more: Any) -> None:
        meta: JSON = {"name": name} | ({"namespace": "default"} if kind.namespaced else {})
        self.server.run(self.server.session().create(kind, {"metadata": meta, "spec": spec, **more}))

    def patch(self, kind: Kind, name: str, patch: JSON, *, subresource: str = "") -> None:
        namespace = "default" if kind.namespaced else ""
        self.server.run(self.server.session().patch(kind, namespace, name, patch, subresource=subresource))

    def get(self, kind: Kind, name: str) -> JSON:
        return self.server.run(self.server.session().get(kind, "default" if kind.namespaced else "", name))

    def add_node(self, name: str, number: int) -> Namespace:
        """A ready Node with its namespace; what asks for an address of the pool there is answered with its name."""
        node = self.nodes[name] = self.lab.namespace(name)
        self.lab.link(self.router, f"port{number}", node, "eth0")
        self.router.ip("link", "set", f"port{number}", "master", "br0")
        node.ip("addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
        node.ip("addr", "add", f"fd00:9::{number}/64", "dev", "eth0", "nodad")
        node.ip("route", "add", "default", "via", "10.9.0.1")
        node.ip("route", "add", "default", "via", "fd00:9::1")
        node.sysctl("ipv4/conf/all/arp_ignore", "1")
        # No question of its own names one of these as the asker's either: what a dead node still had to send when its
        # link comes back would take the address over.
        node.sysctl("ipv4/conf/all/arp_announce", "2")
        for network in POOL:
            node.ip("route", "add", "local", network, "dev", "lo")
        node.sysctl("ipv6/ip_nonlocal_bind", "1")
        self.lab.serve(node, 80, name)
        self.lab.serve(node, 80, name, family=socket.AF_INET6)
        addresses = [{"type": "InternalIP", "address": f"10.9.0.{number}"}]
        self.server.run(self.server.session().create(NODE, {"metadata": {"name": name}}))
        self.ready(name, addresses=addresses)
        return node

    def ready(self, name: str, status: str = "True", **more: Any) -> None:
        found: JSON = {"conditions": [{"type": "Ready", "status": status}], **more}
        self.patch(NODE, name, {"status": found}, subresource="status")

    def announce(self, name: str, *words: str) -> Announcer:
        started = Announcer(self.nodes[name], name, self.server.kubeconfig, self.directory, *words)
        self.stack.callback(started.end)
        return started

    def service(self, name: str, *addresses: str, policy: str = "Cluster") -> None:
        """A Service that shows these addresses, as the controller would have it."""
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}], "externalTrafficPolicy": policy}
        self.create(SERVICE, name, spec)
        ingress = [{"ip": address, "ipMode": "VIP"} for address in addresses]
        self.patch(SERVICE, name, {"status": {"loadBalancer": {"ingress": ingress}}}, subresource="status")

    def endpoint_on(self, service: str, *nodes: str) -> None:
        """The Service's only ready endpoints, of both families."""
        for family, address in (("IPv4", "10.244.0.2"), ("IPv6", "fd00:244::2")):
            name = f"{service}-{family.lower()}"
            endpoints = [{"addresses": [address], "nodeName": n, "conditions": {"ready": True}} for n in nodes]
            meta = {"name": name, "namespace": "default", "labels": {SERVICE_NAME: service}}
            tree: JSON = {"metadata": meta, "addressType": family, "endpoints": endpoints, "ports": []}
            try:
                self.patch(ENDPOINT_SLICE, name, {"endpoints": endpoints})
            except Exception:
                self.server.run(self.server.session().create(ENDPOINT_SLICE, tree))

    def answers(self, where: Namespace, address: str) -> str:
        """Who answers at the address; "" when nobody does."""
        try:
            return ask(where, address, 80, timeout=0.5)[0]
        except OSError:
            return ""

    def until_answered(self, where: Namespace, address: str, by: str, seconds: float = 60) -> None:
        eventually(lambda: self.answers(where, address) == by, seconds, f"{address} is answered by {by or 'nobody'}")


@contextmanager
def network(label: str, directory: Path, nodes: int = 2) -> Iterator[Network]:
    with Lab(label) as lab:
        router, client = lab.namespace("router"), lab.namespace("client")
        lab.link(router, "eth0", client, "eth0")
        router.ip("addr", "add", "10.8.0.1/24", "dev", "eth0")
        router.ip("addr", "add", "fd00:8::1/64", "dev", "eth0", "nodad")
        client.ip("addr", "add", "10.8.0.2/24", "dev", "eth0")
        client.ip("addr", "add", "fd00:8::2/64", "dev", "eth0", "nodad")
        client.ip("route", "add", "default", "via", "10.8.0.1")
        client.ip("route", "add", "default", "via", "fd00:8::1")
        router.ip("link", "add", "br0", "type", "bridge")
        router.ip("link", "set", "br0", "up")
        router.ip("addr", "add", "10.9.0.1/24", "dev", "br0")
        router.ip("addr", "add", "fd00:9::1/64", "dev", "br0", "nodad")
        router.sysctl("ipv4/ip_forward", "1")
        router.sysctl("ipv6/conf/all/forwarding", "1")
        router.sysctl("ipv4/fib_multipath_hash_policy", "1")
        router.sysctl("ipv6/fib_multipath_hash_policy", "1")
        with netns.entered(router.path):
            server = ServerThread(directory, "10.9.0.1")
        server.start()
        made = Network(lab, server, router, client, directory)
        try:
            made.create(IP_ADDRESS_POOL, "pool", {"addresses": POOL})
            for number in range(1, nodes + 1):
                made.add_node(f"node{number}", 10 + number)
            with made.stack:
                yield made
        finally:
            server.stop()


class Frr:
    """FRR's zebra, bgpd and bfdd in a namespace. `port`: bgpd's."""

    def __init__(self, where: Namespace, config: str, port: int = 179) -> None:
        self._where, self._port = where, port
        self._directory = Path(tempfile.mkdtemp(prefix="frr-"))
        (self._directory / "frr.conf").write_text(config)
        run("chown", "-R", "frr:frr", str(self._directory))
        self._processes = [self._start(daemon) for daemon in ("zebra", "bfdd", "bgpd")]
        run("vtysh", "--vty_socket", str(self._directory), "-f", str(self._directory / "frr.conf"))

    def show(self, command: str) -> str:
        return run("vtysh", "--vty_socket", str(self._directory), "-c", command)

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(60)
        run("rm", "-r", str(self._directory))

    def _start(self, daemon: str) -> subprocess.Popen[bytes]:
        at = self._directory
        command = ["ip", "netns", "exec", self._where.name, str(FRR / daemon), "-f", "/dev/null"]
        command += ["-i", str(at / f"{daemon}.pid"), "-z", str(at / "zserv.api"), "--vty_socket", str(at)]
        command += ["-A", "127.0.0.1", "--log", f"file:{at / daemon}.log"]
        if daemon == "bgpd":
            command += ["-p", str(self._port)]
        if daemon == "bfdd":
            command += ["--bfdctl", str(at / "bfdd.sock")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: _listens(at / f"{daemon}.vty"), 60, f"{daemon} runs")
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process


def _listens(path: Path) -> bool:
    """Raises OSError while nobody does: vtysh passes over a daemon that it can't reach."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
    return True


@contextmanager
def frr(where: Namespace, config: str, port: int = 179) -> Iterator[Frr]:
    running = Frr(where, config, port)
    try:
        yield running
    finally:
        running.close()
