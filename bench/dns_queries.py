"""DNS figures: questions/s of one process, the cost of one Service's change, memory. Prints `name value unit` lines.

Usage: python bench/dns_queries.py [--services 10000] [--endpoints 3] [--seconds 3] [--runs 5] [--loop uvloop|asyncio]

The server is one process on 127.0.0.1, driven by Debian's `dnsperf`. Three mixes: `plain` (A of Services, the fast
path), `pod` (what a glibc stub with a pod's search path really asks: A and AAAA, half of them search-path names that
don't exist) and `edns` (plain with EDNS, as Go asks). Per CPU second counts the server's own user and system time:
on a machine shared with others it is the steadier figure. Every figure is the median of the runs.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import re
import socket
import statistics
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from kubesvc.api.core import Service, ServicePort, ServiceSpec
from kubesvc.api.discovery import Endpoint, EndpointSlice, SlicePort
from kubesvc.api.meta import ObjectMeta
from kubesvc.dns.answers import Answers
from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.records import Record, service_records
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.server import Server

NAMESPACES = 100
TICK = os.sysconf("SC_CLK_TCK")


def names(number: int) -> tuple[str, str]:
    return f"ns-{number % NAMESPACES}", f"service-{number}"


def objects(number: int, endpoints: int, version: int = 0) -> tuple[Service, EndpointSlice]:
    """Service `number` and its slice; another `version` has other endpoints."""
    namespace, name = names(number)
    service = Service(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=ServiceSpec(
            cluster_ip=(ip := f"10.{96 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"),
            cluster_ips=[ip],
            ports=[ServicePort(name="http", port=80), ServicePort(name="metrics", port=9090)],
        ),
    )
    addresses = [(number * endpoints + e + version) % 16_000_000 for e in range(endpoints)]
    piece = EndpointSlice(
        metadata=ObjectMeta(name=f"{name}-a", namespace=namespace),
        endpoints=[Endpoint(addresses=[f"11.{a >> 16}.{a >> 8 & 255}.{a & 255}"]) for a in addresses],
        ports=[SlicePort(name="http", port=8080), SlicePort(name="metrics", port=9090)],
    )
    return service, piece


class Cluster:
    """Objects as informers' caches hold them, and the answers made of them."""

    def __init__(self, services: int, endpoints: int) -> None:
        self.endpoints = endpoints
        self.objects: dict[tuple[str, str], tuple[Service, EndpointSlice]] = {}
        for number in range(services):
            service, piece = objects(number, endpoints)
            self.objects[service.key] = service, piece
        self.answers = Answers("cluster.local", ttl=5)

    def records(self, key: tuple[str, str]) -> list[Record]:
        service, piece = self.objects[key]
        return service_records(service, [piece], self.answers.zone, self.answers.ttl)

    def build(self) -> None:
        for number in range(NAMESPACES):
            self.answers.set_namespace(f"ns-{number}", exists=True)
        for key, (service, piece) in self.objects.items():
            self.answers.promise(key, self.records)
            self.answers.changed(key, come=[*service.spec.cluster_ips, *(e.addresses[0] for e in piece.endpoints)])
        self.answers.synced = True

    def change(self, number: int, version: int) -> None:
        """Other endpoints for one Service."""
        service, piece = objects(number, self.endpoints, version)
        _, before = self.objects[service.key]
        self.objects[service.key] = service, piece
        come, gone = ([e.addresses[0] for e in one.endpoints] for one in (piece, before))
        self.answers.changed(service.key, come=come, gone=gone)


def resident() -> int:
    """This process's private memory, in bytes."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+:\s+(\d+) kB", text)) * 1024


def serve(options: argparse.Namespace, udp: socket.socket, parent: Connection) -> None:
    """The server process: load, report, answer until killed."""
    cluster = Cluster(options.services, options.endpoints)
    answers = cluster.answers
    before, began = resident(), time.perf_counter()
    cluster.build()
    loaded = time.perf_counter() - began
    built = resident() - before
    sample = random.Random(1).sample(range(options.services), min(1000, options.services))
    asked = [wire.question(wire.encode_name(".".join((*names(n)[::-1], "svc", "cluster.local"))), 1) for n in sample]
    costs, first = [], []
    for version, (number, question) in enumerate(zip(sample, asked, strict=True), start=1):
        began = time.perf_counter()
        cluster.change(number, version)
        costs.append(time.perf_counter() - began)
        began = time.perf_counter()
        answers.find(question)
        first.append(time.perf_counter() - began)
    gc.collect()
    gc.freeze()
    parent.send((loaded, built, costs, first))

    async def forever() -> None:
        forwarder = Forwarder((), plain_socket, clock=time.monotonic)
        server = Server(answers, Resolver(answers, forwarder), [udp], [])
        await server.start()
        parent.send("ready")
        await asyncio.Event().wait()

    def report() -> None:
        parent.recv()
        parent.send((resident() - before, len(answers.table), render(server_of[0].counts, forwarder_of[0])))

    if options.loop == "uvloop":
        uvloop.run(forever())
    else:
        asyncio.run(forever())


def questions(mix: str, services: int) -> list[str]:
    """Lines of a dnsperf data file."""
    chosen = random.Random(2)
    lines = []
    for _ in range(20_000):
        namespace, name = names(chosen.randrange(services))
        whole = f"{name}.{namespace}.svc.cluster.local"
        if mix != "pod":
            lines.append(f"{whole} A")
            continue
        # A client in another namespace writes name.namespace: the first search domain misses, the second hits.
        miss = f"{name}.{namespace}.ns-{chosen.randrange(NAMESPACES)}.svc.cluster.local"
        lines += [f"{asked} {kind}" for asked in (miss, whole) for kind in ("A", "AAAA")]
    return lines


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def drive(port: int, pid: int, data: str, seconds: int, *extra: str) -> tuple[float, float, float]:
    """One run of dnsperf: (questions/s, questions per CPU second of the server, per cent lost)."""
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", data, "-l", str(seconds), "-q", "200", "-c", "8"]
    before = cpu_seconds(pid)
    output = subprocess.run([*command, *extra], capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(pid) - before
    completed = int(re.search(r"Queries completed:\s+(\d+)", output)[1])  # type: ignore[index]
    rate = float(re.search(r"Queries per second:\s+([\d.]+)", output)[1])  # type: ignore[index]
    lost = float(re.search(r"Queries lost:\s+\d+ \(([\d.]+)%\)", output)[1])  # type: ignore[index]
    return rate, completed / used, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--mixes", default="plain,pod,edns")
    options = parser.parse_args()

    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(options, udp, there), daemon=True)
    server.start()
    assert server.pid is not None
    loaded, memory, entries = here.recv()
    costs = here.recv()
    here.recv()
    size = f"{options.services}"
    print(f"dns_load_{size} {loaded:.3f} s")
    print(f"dns_entries_{size} {entries} answers")
    print(f"dns_memory_{size} {memory / 1e6:.1f} MB")
    print(f"dns_update_one_service_{size} {statistics.median(costs) * 1e6:.1f} us")
    try:
        for mix in options.mixes.split(","):
            with tempfile.NamedTemporaryFile("w", suffix=".dnsperf") as data:
                data.write("\n".join(questions(mix, options.services)) + "\n")
                data.flush()
                extra = ["-e"] if mix == "edns" else []
                port = udp.getsockname()[1]
                runs = [drive(port, server.pid, data.name, options.seconds, *extra) for _ in range(options.runs)]
            rates, per_cpu, lost = zip(*runs, strict=True)
            print(f"dns_{mix}_{size} {statistics.median(rates):.0f} questions/s")
            print(f"dns_{mix}_per_cpu_{size} {statistics.median(per_cpu):.0f} questions/s")
            print(f"dns_{mix}_lost_{size} {max(lost):.2f} %")
    finally:
        server.kill()
        server.join()


if __name__ == "__main__":
    main()
