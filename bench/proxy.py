"""How fast the data plane is programmed, with the real backend in scratch namespaces. Prints `name value unit` lines.

    PYTHONPATH=src python bench/proxy.py [--quick]

Each figure is the median of several runs. "start" is a process of its own, from a forked child that has everything
imported (as a box's proxy is) to the kernel's acknowledgement: lists of JSON through a transport, decoded, decided,
programmed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import secrets
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.client.session import Session, collector_paused
from kubesvc.client.transport import Request, Response
from kubesvc.kernel import netns
from kubesvc.kernel.nft.connection import Connection
from kubesvc.proxy.backend import Ranges
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.main import run
from kubesvc.proxy.nftables import NftablesBackend

RANGES = Ranges((ip_network("10.96.0.0/12"),), (ip_network("10.128.0.0/9"),))
logging.getLogger("kubesvc.proxy.namespace").setLevel(logging.ERROR)  # no link here has the node's address
CONFIG = ProxyConfig("node0", (ip_address("172.29.7.11"),), RANGES.service_cidrs, RANGES.pod_cidrs)


def address(first: int, number: int) -> str:
    return f"10.{first + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def service_tree(number: int) -> dict[str, object]:
    ip = address(96, number + 1)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(f"svc-{number}", number, {"app": f"svc-{number}"}),
        "spec": {
            "clusterIP": ip,
            "clusterIPs": [ip],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "selector": {"app": f"svc-{number}"},
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    }


def slice_tree(number: int, endpoints: int = 3, shift: int = 0) -> dict[str, object]:
    labels = {
        "app": f"svc-{number}",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": f"svc-{number}",
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _metadata(f"svc-{number}-abcde", number, labels),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [address(128, number * 16 + n + shift)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"node{n}",
                "targetRef": {"kind": "Pod", "namespace": "default", "name": f"svc-{number}-{n}", "uid": _uid(n)},
            }
            for n in range(endpoints)
        ],
    }


def _uid(number: int) -> str:
    return f"6fb5d2c7-92c7-4b1c-8d7a-{number:012d}"


def _metadata(name: str, number: int, labels: dict[str, str]) -> dict[str, object]:
    return {
        "namespace": "default",
        "name": name,
        "uid": _uid(number),
        "resourceVersion": str(number + 1),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": labels,
    }


@contextmanager
def scratch() -> Iterator[Path]:
    """A network namespace for one run."""
    path = netns.create_named(f"bench-proxy-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        yield path
    finally:
        netns.delete(path)


def connect(path: Path) -> NftablesBackend:
    with netns.entered(path):
        return NftablesBackend(Connection(), RANGES)


def load(count: int) -> Frontends:
    """Decisions not yet made, of `count` Services."""
    frontends = Frontends(Locality("node0"), [])
    for number in range(count):
        service = msgspec.convert(service_tree(number), Service)
        frontends.set_service(service.key, service)
        frontends.set_slice(None, msgspec.convert(slice_tree(number), EndpointSlice))
    return frontends


def say(name: str, values: list[float], unit: str) -> None:
    middle = statistics.median(values)
    spread = f"   ({min(values):.3f} to {max(values):.3f}, {len(values)} runs)"
    print(f"{name} {middle:.3f} {unit}{spread}", flush=True)


def from_nothing(count: int, runs: int) -> None:
    """Feed objects already decoded, decide, encode, and wait for the kernel."""
    whole, kernel, restart = [], [], []
    services = [msgspec.convert(service_tree(n), Service) for n in range(count)]
    slices = [msgspec.convert(slice_tree(n), EndpointSlice) for n in range(count)]
    gc.collect()
    gc.freeze()
    for _ in range(runs):
        with scratch() as path, collector_paused():  # as in a proxy that starts
            backend = connect(path)
            started = time.perf_counter()
            frontends = Frontends(Locality("node0"), [])
            for service in services:
                frontends.set_service(service.key, service)
            for found in slices:
                frontends.set_slice(None, found)
            frontends.take()
            decided = time.perf_counter()
            backend.resync(frontends.everything())
            whole.append(time.perf_counter() - started)
            kernel.append(time.perf_counter() - decided)
            again = connect(path)
            started = time.perf_counter()
            again.resync(frontends.everything())
            restart.append(time.perf_counter() - started)
            again.close()
            backend.close()
    gc.unfreeze()
    say(f"program-{count}x3", whole, "s")
    say(f"program-{count}x3-of-it-encode-and-kernel", kernel, "s")
    say(f"adopt-{count}x3-unchanged", restart, "s")


def changes(count: int, runs: int) -> dict[str, float]:
    """A slice's change, from the decoded object to the kernel's acknowledgement, in milliseconds."""
    found: dict[str, list[float]] = {"replaced": [], "added": [], "removed": []}
    with scratch() as path:
        backend = connect(path)
        frontends = load(count)
        frontends.take()
        backend.resync(frontends.everything())
        gc.collect()
        gc.freeze()
        for run in range(runs):
            number = run * 7919 % count
            three = msgspec.convert(slice_tree(number), EndpointSlice)
            other = msgspec.convert(slice_tree(number, shift=1), EndpointSlice)
            four = msgspec.convert(slice_tree(number, 4), EndpointSlice)
            for name, before, after in (
                ("replaced", three, other),
                ("", other, three),
                ("added", three, four),
                ("removed", four, three),
            ):
                started = time.perf_counter()
                frontends.set_slice(before, after)
                backend.apply(frontends.take(), "1")
                took = (time.perf_counter() - started) * 1000
                if name:
                    found[name].append(took)
        gc.unfreeze()
        backend.close()
    for name, values in found.items():
        ordered = sorted(values)
        say(f"endpoint-{name}-at-{count}", values, "ms")
        print(f"endpoint-{name}-at-{count}-p99 {ordered[int(len(ordered) * 0.99)]:.3f} ms", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


class Lists:
    """A transport that answers every list from bytes made before, and lets watches hang."""

    def __init__(self, count: int, endpoints: int = 3) -> None:
        services = b",".join(msgspec.json.encode(service_tree(n)) for n in range(count))
        slices = b",".join(msgspec.json.encode(slice_tree(n, endpoints)) for n in range(count))
        node = msgspec.json.encode({"metadata": {"name": "node0", "resourceVersion": "1"}})
        cidr = msgspec.json.encode(
            {"metadata": {"name": "kubernetes", "resourceVersion": "1"}, "spec": {"cidrs": ["10.96.0.0/12"]}}
        )
        self._bodies = {"services": services, "endpointslices": slices, "nodes": node, "servicecidrs": cidr}

    async def send(self, request: Request) -> Response:
        if "watch" in request.query:
            await asyncio.Event().wait()
        items = self._bodies[request.path.rsplit("/", 1)[-1]]
        return Response(200, b'{"metadata":{"resourceVersion":"9"},"items":[' + items + b"]}")

    async def close(self) -> None:
        return None


class Programmed(logging.Handler):
    """Hears the proxy say that everything is in force."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.happened = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "in force" in record.msg:
            self.happened.set()


async def until_programmed(transport: Lists) -> tuple[float, float, float, float]:
    """When everything was in force; the CPU seconds used; MB grown, once settled and at most."""
    before = _private()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    heard = Programmed()
    logging.getLogger("kubesvc.proxy.main").setLevel(logging.INFO)
    logging.getLogger("kubesvc.proxy.main").addHandler(heard)
    running = asyncio.create_task(run(Session(transport), CONFIG))
    await heard.happened.wait()
    done, used = time.perf_counter(), time.process_time()
    await asyncio.sleep(1.0)
    grown, above = _private() - before, _status("VmHWM") - _status("VmRSS")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return done, used, grown / 1024, (grown + above) / 1024


def start(count: int, runs: int, endpoints: int = 3) -> None:
    """The whole process, forked with its modules imported."""
    took, used, memory, peak = [], [], [], []
    transport = Lists(count, endpoints)
    for _ in range(runs):
        with scratch() as path:
            came, went = os.pipe()
            started = time.perf_counter()
            child = os.fork()
            if child == 0:
                _child(path, transport, went)
            os.close(went)
            with os.fdopen(came) as report:
                done, *figures = map(float, report.read().split())
            os.waitpid(child, 0)
            took.append(done - started)
            for values, figure in zip((used, memory, peak), figures, strict=True):
                values.append(figure)
    name = f"start-to-programmed-{count}x{endpoints}"
    say(name, took, "s")
    say(f"{name}-cpu", used, "s")
    say(f"{name}-memory-grown", memory, "MB")
    say(f"{name}-memory-grown-at-most", peak, "MB")


def _child(path: Path, transport: Lists, report: int) -> None:
    netns.enter(path)
    os.write(report, " ".join(map(str, asyncio.run(until_programmed(transport)))).encode())
    os._exit(0)


def _status(name: str) -> int:
    """A line of this process' status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _private() -> int:
    """Private memory of this process in KiB: what it doesn't share with the one it was forked from."""
    rolled = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rolled.splitlines() if line.startswith("Private_"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer runs, and not 100,000 Services")
    quick = parser.parse_args().quick
    from_nothing(10_000, 3 if quick else 7)
    start(10_000, 3 if quick else 7)
    start(30_000, 1 if quick else 3)
    if not quick:
        start(100_000, 3, endpoints=10)
    sizes = (100, 10_000) if quick else (100, 10_000, 100_000)
    medians = {count: changes(count, 100 if quick else 1000) for count in sizes}
    for name in ("replaced", "added", "removed"):
        print(f"endpoint-{name}-ratio-{sizes[-1]}-to-100 {medians[sizes[-1]][name] / medians[100][name]:.3f} times")
    print(f"peak-memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
