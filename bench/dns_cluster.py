"""A cluster of lists for DNS benches, a server process that follows it, dnsperf to ask it.

The API is a transport in the server's own process that reads prepared JSON from files: what the server does with it is
measured, not what it costs to write it. Changes come as lines of a watch, at a rate.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import random
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from kubesvc.client.session import Session
from kubesvc.client.transport import Request, Response
from kubesvc.dns.answers import Answers
from kubesvc.dns.config import plain_socket
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.server import Server
from kubesvc.dns.world import World

NAMESPACES = 100
TICK = os.sysconf("SC_CLK_TCK")
KINDS = {"Service": ("services", "v1"), "EndpointSlice": ("endpointslices", "discovery.k8s.io/v1")}
FIRST_CHANGE = 1_000_000  # resource version


def names(number: int) -> tuple[str, str]:
    return f"ns-{number % NAMESPACES}", f"service-{number}"


def whole_name(number: int) -> str:
    return ".".join((*names(number)[::-1], "svc.cluster.local"))


def cluster_ip(number: int) -> str:
    return f"10.{96 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def _metadata(number: int, name: str, revision: int) -> dict[str, object]:
    return {
        "name": name,
        "namespace": names(number)[0],
        "uid": f"6fb5d2c7-92c7-4b1c-8d7a-{number:012d}",
        "resourceVersion": str(revision),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": names(number)[1], "kubernetes.io/service-name": names(number)[1]},
    }


def service_tree(number: int) -> dict[str, object]:
    ip = cluster_ip(number)
    ports = [{"name": n, "port": p, "protocol": "TCP", "targetPort": t} for n, p, t in PORTS]
    spec = {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(number, names(number)[1], number + 1),
        "spec": spec | {"selector": {"app": names(number)[1]}, "sessionAffinity": "None"},
        "status": {"loadBalancer": {}},
    }


PORTS = (("http", 80, 8080), ("metrics", 9090, 9090))


def endpoint_address(number: int) -> str:
    return f"11.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def slice_tree(number: int, endpoints: int, version: int = 0) -> dict[str, object]:
    """Another `version` has other endpoints."""
    namespace, name = names(number)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _metadata(number, f"{name}-abcde", FIRST_CHANGE * bool(version) + version + number + 1),
        "addressType": "IPv4",
        "ports": [{"name": n, "port": target, "protocol": "TCP"} for n, _, target in PORTS],
        "endpoints": [
            {
                "addresses": [endpoint_address(number * endpoints + e + version)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"node{e}",
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": f"{name}-{e}"},
            }
            for e in range(endpoints)
        ],
    }


def write_lists(directory: Path, services: int, endpoints: int, changes: int = 0) -> None:
    """The lists, and `changes` lines of a watch of slices: every change is another Service's.

    In a process of its own: what is left of it would count as the memory of what is forked later.
    """
    arguments = (directory, services, endpoints, changes)
    writer = multiprocessing.get_context("fork").Process(target=_write_lists, args=arguments)
    writer.start()
    writer.join()


def _write_lists(directory: Path, services: int, endpoints: int, changes: int) -> None:
    namespaces = [{"metadata": {"name": f"ns-{n}", "resourceVersion": "1"}} for n in range(NAMESPACES)]
    lists = {
        "namespaces": namespaces,
        "services": [service_tree(n) for n in range(services)],
        "endpointslices": [slice_tree(n, endpoints) for n in range(services)],
    }
    for resource, items in lists.items():
        tree = {"metadata": {"resourceVersion": str(services)}, "items": items}
        (directory / resource).write_bytes(msgspec.json.encode(tree))
    with (directory / "changes").open("wb") as lines:
        for count in range(1, changes + 1):
            tree = slice_tree(count * 7919 % services, endpoints, count)
            lines.write(msgspec.json.encode({"type": "MODIFIED", "object": tree}) + b"\n")


class Files:
    """A transport: lists from files; the watch of slices tells `rate` changes a second once `begin` is set."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.begin = asyncio.Event()
        self.rate = 0
        self.told = 0

    async def send(self, request: Request) -> Response:
        resource = request.path.rsplit("/", 1)[1]
        if "watch" in request.query:
            return Response(200, stream=self._changes(resource))
        return Response(200, body=(self._directory / resource).read_bytes())

    async def close(self) -> None:
        return None

    async def _changes(self, resource: str) -> AsyncIterator[bytes]:
        await self.begin.wait()
        started = time.perf_counter()
        with (self._directory / "changes").open("rb") as lines:
            for line in lines if resource == "endpointslices" else ():
                ahead = started + self.told / self.rate - time.perf_counter()
                if ahead > 0:
                    await asyncio.sleep(ahead)
                self.told += 1
                yield line
        await asyncio.Event().wait()


def resident() -> int:
    """This process's private memory, in bytes."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+:\s+(\d+) kB", text)) * 1024


async def _serve(directory: Path, udp: socket.socket, parent: Connection) -> None:
    before, began, cpu = resident(), time.perf_counter(), time.process_time()
    transport = Files(directory)
    answers = Answers("cluster.local", ttl=5)
    world = World(Session(transport), answers)
    follow = asyncio.create_task(world.run())
    await world.synced.wait()
    forwarder = Forwarder((), plain_socket, clock=time.monotonic)
    server = Server(answers, Resolver(answers, forwarder), [udp], [])
    await server.start()
    ready = time.perf_counter() - began, time.process_time() - cpu
    gc.collect()
    gc.freeze()
    parent.send((ready, resident() - before))
    loop = asyncio.get_running_loop()
    while command := await loop.run_in_executor(None, parent.recv):
        if command == "memory":
            gc.collect()
            parent.send((resident() - before, len(answers.table)))
        elif command in ("told", "failed"):
            parent.send(transport.told if command == "told" else server.counts.failed)
        else:
            transport.rate = command
            transport.begin.set()
    follow.cancel()


def _main(directory: Path, udp: socket.socket, parent: Connection) -> None:
    uvloop.run(_serve(directory, udp, parent))


class Running:
    """A server process that is ready after `seconds`, `cpu` seconds of work and with `memory` bytes."""

    def __init__(self, pid: int, port: int, connection: Connection) -> None:
        self.pid, self.port, self.connection = pid, port, connection
        (self.seconds, self.cpu), self.memory = connection.recv()

    def ask(self, command: str) -> Any:
        """`memory`: (bytes, answers made); `told`: changes so far; `failed`: questions that broke something."""
        self.connection.send(command)
        return self.connection.recv()


@contextmanager
def running(directory: Path) -> Iterator[Running]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_main, args=(directory, udp, there), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield Running(process.pid, udp.getsockname()[1], here)
    finally:
        process.kill()
        process.join()
        udp.close()


def questions(mix: str, services: int) -> list[str]:
    """Lines of a dnsperf data file."""
    chosen = random.Random(2)
    lines = []
    for _ in range(20_000):
        number = chosen.randrange(services)
        whole = whole_name(number)
        if mix == "pod":
            # A client in another namespace writes name.namespace: the first search domain misses, the second hits.
            namespace, name = names(number)
            miss = f"{name}.{namespace}.ns-{chosen.randrange(NAMESPACES)}.svc.cluster.local"
            lines += [f"{asked} {kind}" for asked in (miss, whole) for kind in ("A", "AAAA")]
        elif mix == "0x20":
            lines.append("".join(chosen.choice((c.upper(), c)) for c in whole) + " A")
        else:
            lines.append(f"{whole} A")
    return lines


@contextmanager
def data_file(mix: str, services: int) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".dnsperf") as data:
        data.write("\n".join(questions(mix, services)) + "\n")
        data.flush()
        yield data.name


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


def latencies(port: int, pid: int, data: str, seconds: int, rate: int) -> list[float]:
    """Seconds that each question took at `rate` questions/s, sorted.

    The server and dnsperf, of two threads, have a core each: otherwise the figure is the scheduler's time slices. The
    first second isn't counted: dnsperf sends in one go what it is behind after its own start, some thousand questions.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, cores[:1])
    command = ["taskset", "-c", str(cores[-1])]
    command += ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", data, "-l", str(1 + seconds), "-Q", str(rate)]
    with tempfile.TemporaryFile() as out:
        subprocess.run([*command, "-v", "-c", "8", "-q", "2000", "-e"], stdout=out, check=True)
        os.sched_setaffinity(pid, cores)
        out.seek(0)
        found = [float(line.rsplit(b" ", 1)[1]) for line in out if line.startswith(b"> NOERROR")]
        return sorted(found[rate:])


def options(description: str | None, **defaults: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()
