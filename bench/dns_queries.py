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
from kubesvc.dns.records import service_records
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


def load(services: int, endpoints: int) -> Answers:
    answers = Answers("cluster.local", ttl=5)
    for number in range(NAMESPACES):
        answers.set_namespace(f"ns-{number}", exists=True)
    for number in range(services):
        refresh(answers, number, endpoints)
    answers.synced = True
    return answers


def refresh(answers: Answers, number: int, endpoints: int, version: int = 0) -> None:
    service, piece = objects(number, endpoints, version)
    answers.replace(service.key, service_records(service, [piece], answers.zone, answers.ttl))


def resident() -> int:
    """This process's private memory, in bytes."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+:\s+(\d+) kB", text)) * 1024


def serve(options: argparse.Namespace, udp: socket.socket, parent: Connection) -> None:
    """The server process: load, report, answer until killed."""
    before, began = resident(), time.perf_counter()
    answers = load(options.services, options.endpoints)
    loaded = time.perf_counter() - began
    parent.send((loaded, resident() - before, len(answers.table)))
    sample = random.Random(1).sample(range(options.services), min(1000, options.services))
    costs = []
    for version, number in enumerate(sample, start=1):
        service, piece = objects(number, options.endpoints, version)
        began = time.perf_counter()
        answers.replace(service.key, service_records(service, [piece], answers.zone, answers.ttl))
        costs.append(time.perf_counter() - began)
    parent.send(costs)

    async def forever() -> None:
        forwarder = Forwarder((), plain_socket, clock=time.monotonic)
        server = Server(answers, Resolver(answers, forwarder), [udp], [])
        await server.start()
        parent.send("ready")
        await asyncio.Event().wait()

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
