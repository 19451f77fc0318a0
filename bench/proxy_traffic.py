"""What a Service costs a packet: new connections and throughput, to a cluster IP and straight to its pods.

    PYTHONPATH=src:bench:tests python bench/proxy_traffic.py [--quick] [--maps-only]

    client pod 10.244.0.9 ── node ── pods 10.244.0.1 to .3

Straight and by the cluster IP take turns over the same three pods (one for iperf3), on one node whose table has 10 or
10,000 Services. Beside it the same Services as a chain for each Service and each endpoint, loaded with `nft -f`: how
long that takes, what one changed endpoint takes, and the same traffic. Client and server share the machine's cores;
`cpu` is what the client used for a connection, the kernel's work on its packets included, busy machine or not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

from figures import show, show_median
from kubesvc.kernel import netns
from kubesvc.kernel.nft.connection import Connection
from kubesvc.proxy import namespace
from kubesvc.proxy.backend import Ranges
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.layout import TABLE
from kubesvc.proxy.nftables import NftablesBackend
from support.net import Lab, Namespace
from support.proxy import changes, frontend

PODS = ("10.244.0.1", "10.244.0.2", "10.244.0.3")
VIP, IPERF_VIP, PORT, TARGET, IPERF = "10.96.0.10", "10.96.0.11", 80, 8080, 5201
CONFIG = ProxyConfig(
    "node0", (ip_address("172.29.7.11"),), (ip_network("10.96.0.0/12"),), (ip_network("10.244.0.0/16"),)
)
RANGES = Ranges(CONFIG.service_cidrs, CONFIG.pod_cidrs)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, keep no TIME_WAIT


def others(count: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Cluster IP and endpoints of the Services nobody talks to."""
    for number in range(count - 2):
        last = f"{number >> 8 & 255}.{number & 255}"
        yield f"10.{97 + (number >> 16)}.{last}", tuple(f"10.244.{1 + number % 250}.{n}" for n in range(1, 4))


def everything(count: int) -> list[tuple[str, int, int, tuple[str, ...]]]:
    """Address, port, target port, endpoints."""
    found = [(VIP, PORT, TARGET, PODS), (IPERF_VIP, IPERF, IPERF, PODS[:1])]
    return found + [(address, PORT, TARGET, endpoints) for address, endpoints in others(count)]


# ── traffic ──


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """`work` in a process of its own, ended with the block."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def accept_all(listening: Sequence[socket.socket]) -> None:
    poll = select.epoll()
    by_number = {one.fileno(): one for one in listening}
    for one in listening:
        one.setblocking(False)
        poll.register(one, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            while True:
                try:
                    by_number[number].accept()[0].close()
                except BlockingIOError:
                    break
                except OSError:
                    continue


def connections(client: Namespace, targets: Sequence[tuple[str, int]], seconds: float) -> tuple[float, float]:
    """New connections a second of one client that makes one after the other; microseconds of CPU for each."""
    came, went = os.pipe()
    pid = os.fork()
    if pid == 0:
        netns.enter(client.path)
        order = [random.choice(targets) for _ in range(4096)]
        made = failed = 0
        began, used = time.perf_counter(), time.process_time()
        ends = began + seconds
        while time.perf_counter() < ends:
            for target in order[:256]:
                with socket.socket() as one:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    try:
                        one.connect(target)
                    except OSError:
                        failed += 1
                made += 1
            order = order[256:] + order[:256]
        took = time.perf_counter() - began
        used = time.process_time() - used
        os.write(went, f"{made / took} {used / made * 1e6} {failed}".encode())
        os._exit(0)
    os.close(went)
    with os.fdopen(came) as report:
        rate, cpu, failures = report.read().split()
    os.waitpid(pid, 0)
    assert failures == "0", f"{failures} connections failed"
    return float(rate), float(cpu)


def throughput(client: Namespace, address: str, seconds: float) -> float:
    """Gbit/s of one iperf3 stream."""
    said = client.run("iperf3", "-c", address, "-p", str(IPERF), "-t", str(seconds), "-J")
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


class World:
    """The pods, their servers, the client."""

    def __init__(self, lab: Lab) -> None:
        self.node = lab.namespace("node")
        self.node.ip("addr", "add", "172.29.7.11/32", "dev", "lo")
        self.pods = [lab.pod(self.node, f"p{number}", address) for number, address in enumerate(PODS)]
        self.client = lab.pod(self.node, "client", "10.244.0.9")
        self.client.sysctl("ipv4/ip_local_port_range", "1024 65535")
        self.node.call(lambda: namespace.prepare(CONFIG))

    @contextmanager
    def serving(self) -> Iterator[None]:
        listening = []
        for pod in self.pods:
            pod.sysctl("core/somaxconn", "65535")
            one = pod.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("", TARGET))
            one.listen(65535)
            listening.append(one)
        iperf = subprocess.Popen(
            ["ip", "netns", "exec", self.pods[0].name, "iperf3", "-s", "-p", str(IPERF)], stdout=subprocess.DEVNULL
        )
        try:
            with child(lambda: accept_all(listening)):
                yield
        finally:
            iperf.kill()
            iperf.wait()
            for one in listening:
                one.close()

    def forget(self) -> None:
        """No tracked connection is left from the run before."""
        self.node.sysctl("netfilter/nf_conntrack_tcp_timeout_close", "1")
        subprocess.run(["ip", "netns", "exec", self.node.name, "conntrack", "-F"], capture_output=True, check=True)

    def compare(self, name: str, runs: int, seconds: float) -> None:
        """Straight and by the cluster IP in turns; medians, and the ratio."""
        straight: list[tuple[float, float]] = []
        service: list[tuple[float, float]] = []
        direct: list[float] = []
        through: list[float] = []
        pods, vip = [(pod, TARGET) for pod in PODS], [(VIP, PORT)]
        for run in range(runs):
            turns = ((straight, pods, direct, PODS[0]), (service, vip, through, IPERF_VIP))
            for rates, targets, flows, address in turns if run % 2 else reversed(turns):
                self.forget()
                rates.append(connections(self.client, targets, seconds))
                flows.append(throughput(self.client, address, seconds))
        for which, values in (("pod_to_pod", straight), ("cluster_ip", service)):
            show_median(f"{name}_connections_{which}", [rate for rate, _ in values], "1/s")
            show_median(f"{name}_connection_cpu_{which}", [cpu for _, cpu in values], "us")
        pairs = list(zip(straight, service, strict=True))
        show_median(f"{name}_connections_ratio", [b[0] / a[0] for a, b in pairs], "times")
        show_median(f"{name}_connection_cpu_ratio", [a[1] / b[1] for a, b in pairs], "times")
        show_median(f"{name}_throughput_pod_to_pod", direct, "Gbit/s")
        show_median(f"{name}_throughput_cluster_ip", through, "Gbit/s")
        show_median(f"{name}_throughput_ratio", [b / a for a, b in zip(direct, through, strict=True)], "times")


# ── a chain for each ──


def chained(count: int) -> str:
    """The Services as iptables' successors write them: a chain a Service, a chain an endpoint, one map of verdicts."""
    elements, chains = [], []
    for number, (address, port, target, endpoints) in enumerate(everything(count)):
        elements.append(f"{address} . tcp . {port} : goto service-{number}")
        for which, endpoint in enumerate(endpoints):
            chains.append(_endpoint_chain(f"endpoint-{number}-{which}", endpoint, target))
        picks = ", ".join(f"{which} : goto endpoint-{number}-{which}" for which in range(len(endpoints)))
        chains.append(
            f"chain service-{number} {{\n"
            f"ip daddr {address} tcp dport {port} ip saddr != 10.244.0.0/16 meta mark set meta mark or 0x4000\n"
            f"numgen random mod {len(endpoints)} vmap {{ {picks} }}\n}}\n"
        )
    return (
        "table ip chained {\n"
        + "".join(chains)
        + "map services { type ipv4_addr . inet_proto . inet_service : verdict\nelements = { "
        + ",\n".join(elements)
        + " } }\n"
        "chain before { type nat hook prerouting priority -100\nip daddr . meta l4proto . th dport vmap @services\n}\n"
        "chain after { type nat hook postrouting priority 100\nmeta mark & 0x4000 == 0x4000 masquerade\n}\n}\n"
    )


def _endpoint_chain(name: str, endpoint: str, target: int) -> str:
    mark = f"ip saddr {endpoint} meta mark set meta mark or 0x4000"
    return f"chain {name} {{\n{mark}\nmeta l4proto tcp dnat to {endpoint}:{target}\n}}\n"


def one_endpoint(turn: int) -> str:
    """An endpoint of the third Service is another one."""
    name = "chained endpoint-2-0"
    return f"flush chain ip {name}\nadd rule ip {name} meta l4proto tcp dnat to 10.244.200.{turn + 1}:{TARGET}\n"


def load(node: Namespace, text: str) -> float:
    """Seconds of `nft -f`."""
    with tempfile.NamedTemporaryFile("w", suffix=".nft") as file:
        file.write(text)
        file.flush()
        began = time.perf_counter()
        node.run("nft", "-f", file.name)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--maps-only", action="store_true", help="nothing beside it: loading 10,000 chains takes long")
    given = parser.parse_args()
    quick = given.quick
    runs, seconds = (3, 1) if quick else (15, 1)
    show("load_before", os.getloadavg()[0], "processes")
    for count in (10, 10_000):
        with Lab("bench") as lab:
            world = World(lab)
            connection = world.node.call(Connection)
            assert isinstance(connection, Connection)
            backend = NftablesBackend(connection, RANGES)
            with world.serving():
                made = [frontend(a, p, *e, target=t, owner=a) for a, p, t, e in everything(count)]
                began = time.perf_counter()
                backend.resync(changes(*made))
                show(f"maps_at_{count}_load", time.perf_counter() - began, "s")
                world.compare(f"maps_at_{count}", runs, seconds)
                if given.maps_only:
                    backend.close()
                    continue
                world.node.run("nft", "delete", "table", "inet", TABLE)
                show(f"chains_at_{count}_load", load(world.node, chained(count)), "s")
                show_median(
                    f"chains_at_{count}_one_endpoint", [load(world.node, one_endpoint(t)) for t in range(5)], "s"
                )
                world.compare(f"chains_at_{count}", runs, seconds)
            backend.close()


if __name__ == "__main__":
    sys.exit(main())
