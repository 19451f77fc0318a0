"""The load balancer: assigning addresses, restarting, and losing an announcer under traffic.

`assign`, `restart`: 1,000 Services of type LoadBalancer against our API server over SQLite, the controller a task
beside it; seconds until all show an address, and how many show another after a restart. `l2`, `bgp`: a client asks an
address 500 times a second, a connection each. l2: its announcer is killed (SIGKILL) and its node's link cut; the outage
is the longest time between two answers. bgp: one of two nodes' links is cut; it lasts until the last connection begins
that isn't answered. Milliseconds, over some rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from kubesvc.api.balancing import parse_range
from kubesvc.api.core import Service
from kubesvc.api.registry import BGP_ADVERTISEMENT, BGP_PEER, SERVICE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.kernel import netns
from kubesvc.loadbalancer import main as loadbalancer
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.store.sqlite import SqliteStore
from support.apiserver import local_session
from support.box import eventually
from support.net import Namespace
from support.segment import Network, frr, network

SERVICES = 1000
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
RATE = 500  # connections a second
VIP = "10.7.0.1"
ROUTER = """
bfd
 profile fast
  receive-interval 100
  transmit-interval 100
 exit
exit
router bgp 64513
 bgp router-id 10.9.0.1
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 neighbor 10.9.0.11 remote-as 64512
 neighbor 10.9.0.11 bfd profile fast
 neighbor 10.9.0.12 remote-as 64512
 neighbor 10.9.0.12 bfd profile fast
 address-family ipv4 unicast
  maximum-paths 8
 exit-address-family
exit
"""


async def assigning() -> None:
    config = LoadBalancerConfig((parse_range("10.0.0.0/21"),))
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "objects.db")
        async with local_session(store=store) as session:
            services = Informer[Service](session, SERVICE, Service)
            following = asyncio.create_task(services.run())
            await services.synced.wait()

            def shown() -> dict[str, str]:
                return {s.name: i[0].ip for s in services.items.values() if (i := s.status.load_balancer.ingress)}

            running = asyncio.create_task(loadbalancer.run(session, config))
            began, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(creator(session, part) for part in range(16)))
            created = time.perf_counter() - began
            await services.until(lambda: len(shown()) == SERVICES)
            assigned = time.perf_counter() - began
            cpu = time.process_time() - cpu
            before = shown()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            revision = services.revision
            running = asyncio.create_task(loadbalancer.run(session, config))
            await asyncio.sleep(3)
            changed = sum(1 for name, address in shown().items() if before[name] != address)
            print(
                f"assign: {SERVICES} Services created in {created:.2f} s, all with an address after {assigned:.2f} s "
                f"({cpu:.2f} s of CPU, the API server's and the creators' included)"
            )
            print(
                f"restart: {changed} addresses changed, {services.revision - revision} writes to Services: nothing is "
                "announced otherwise, not for a moment"
            )
            for task in (running, following):
                task.cancel()
            await asyncio.gather(running, following, return_exceptions=True)
        await store.close()


async def creator(session: Session, part: int) -> None:
    for number in range(part, SERVICES, 16):
        spec = {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{"port": 80}]}
        await session.create(SERVICE, {"metadata": {"name": f"s{number}", "namespace": "default"}, "spec": spec})


class Traffic:
    """Connections at a steady rate from a namespace; `answers` are the moments of those that were answered, `failures`
    those at which one began that wasn't."""

    def __init__(self, where: Namespace) -> None:
        self.answers: list[float] = []
        self.failures: list[float] = []
        self._where = where
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(50)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with netns.entered(self._where.path):
            due = time.monotonic() + number / RATE
            while not self._stop.is_set():
                time.sleep(max(0.0, due - time.monotonic()))
                due = max(due + 50 / RATE, time.monotonic())
                began = time.monotonic()
                with socket.socket() as asking:
                    asking.settimeout(0.4)
                    try:
                        asking.connect((VIP, 80))
                        if asking.recv(64):
                            self.answers.append(time.monotonic())
                    except OSError:
                        self.failures.append(began)

    def outage(self, since: float) -> float:
        """Milliseconds."""
        moments = [since, *sorted(m for m in self.answers if m >= since)]
        return max((b - a for a, b in itertools.pairwise(moments)), default=float("inf")) * 1000

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def show(what: str, outages: list[float]) -> None:
    ordered = sorted(outages)
    p99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    print(f"{what}: outage p50 {statistics.median(ordered):.0f} ms, p99 {p99:.0f} ms, over {len(ordered)} rounds")


def l2() -> None:
    with tempfile.TemporaryDirectory() as directory, network("bench-l2", Path(directory)) as net:
        net.router.ip("route", "add", "10.7.0.0/28", "dev", "br0")
        net.service("web", VIP)
        announcers = {name: net.announce(name) for name in net.nodes}
        outages = []
        holder = ""
        for _ in range(ROUNDS):
            # The elected one is back, so the other is the one that takes over; on a busy machine that takes a while.
            may = {holder} if holder else set(net.nodes)
            eventually(lambda may=may: net.answers(net.router, VIP) in may, 60, "answered")  # type: ignore[misc]
            time.sleep(4)  # everyone has heard everyone, and no announcement is left to be told
            holder = net.answers(net.router, VIP)
            traffic = Traffic(net.router)
            time.sleep(0.5)
            announcers[holder].end(signal.SIGKILL)
            net.nodes[holder].ip("link", "set", "eth0", "down")
            died = time.monotonic()
            time.sleep(4)
            traffic.end()
            outages.append(traffic.outage(died))
            back(net, holder)
            announcers[holder] = net.announce(holder)
        show("l2", outages)


def bgp() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        network("bench-bgp", Path(directory)) as net,
        frr(net.router, ROUTER) as router,
    ):
        bfd = {"receiveInterval": 100, "transmitInterval": 100, "detectMultiplier": 3}
        spec = {"myASN": 64512, "peerASN": 64513, "peerAddress": "10.9.0.1", "bfd": bfd, "connectTime": "1s"}
        net.create(BGP_PEER, "router", spec)
        net.create(BGP_ADVERTISEMENT, "all", {})
        net.service("web", VIP)
        for name in net.nodes:
            net.announce(name)
        outages = []
        for turn in range(ROUNDS):
            eventually(lambda: "2 available" in router.show(f"show bgp ipv4 unicast {VIP}"), 60, "both announce")
            eventually(lambda: router.show("show bfd peers brief").count(" up") == 2, 60, "BFD is up")
            node = f"node{turn % 2 + 1}"
            traffic = Traffic(net.client)
            time.sleep(0.5)
            net.nodes[node].ip("link", "set", "eth0", "down")
            died = time.monotonic()
            time.sleep(3)
            traffic.end()
            # Half of the connections went on being answered all the time.
            outages.append(max((at - died for at in traffic.failures), default=0.0) * 1000)
            back(net, node)
        show("bgp", outages)


def back(net: Network, name: str) -> None:
    node = net.nodes[name]
    node.ip("link", "set", "eth0", "up")
    node.ip("route", "replace", "default", "via", "10.9.0.1")


if __name__ == "__main__":
    parts = sys.argv[2:] or ["assign", "l2", "bgp"]
    if "assign" in parts:
        asyncio.run(assigning())
    if "l2" in parts:
        l2()
    if "bgp" in parts:
        bgp()
