"""DNS figures: questions/s of one process beside Knot's, its start, its memory. Prints `name value unit` lines.

    PYTHONPATH=src:bench python bench/dns_queries.py [--services 10000] [--endpoints 3] [--seconds 3] [--runs 5]

The server is one process on 127.0.0.1 that follows lists and watches, driven by Debian's `dnsperf`; metrics are always
counted. Mixes: `plain` (A of Services), `0x20` (the same in random case with EDNS), `pod` (what a glibc stub with a
pod's search path asks: A and AAAA, half of them search-path names that don't exist). Per CPU second counts the server's
own user and system time: the steadier figure on a machine shared with others. Beside it in the same run, where it is
installed: Knot (`apt-get install knot`) with the same Services' records as a zone file and one UDP worker, the limit of
what a server in C does here. Medians of the runs.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dns_cluster import (
    NAMESPACES,
    PORTS,
    cluster_ip,
    data_file,
    drive,
    endpoint_address,
    latencies,
    names,
    options,
    running,
    write_lists,
)
from figures import show

MIXES = {"plain": (), "0x20": ("-e",), "pod": ()}
STEADY_RATE = 50_000  # questions/s at which latency is looked at


def zone_file(services: int, endpoints: int) -> Iterator[str]:
    """The records of `dns_cluster`'s Services (reverse names apart, which are another zone's)."""
    yield "$ORIGIN cluster.local."
    yield "$TTL 5"
    yield "@ SOA ns.dns hostmaster 1 7200 1800 86400 5"
    yield "@ NS ns.dns"
    yield "ns.dns A 10.96.0.10"
    for number in range(NAMESPACES):
        yield f'ns-{number}.svc TXT "namespace"'
    for number in range(services):
        namespace, name = names(number)
        whole = f"{name}.{namespace}.svc"
        yield f"{whole} A {cluster_ip(number)}"
        for port_name, port, _ in PORTS:
            yield f"{whole} SRV 0 50 {port} {whole}"
            yield f"_{port_name}._tcp.{whole} SRV 0 100 {port} {whole}"
        for e in range(endpoints):
            address = endpoint_address(number * endpoints + e)
            yield f"{address.replace('.', '-')}.{whole} A {address}"


@contextmanager
def knot(services: int, endpoints: int) -> Iterator[tuple[int, int]]:
    """(port, pid) of a Knot with the zone loaded."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free, tempfile.TemporaryDirectory() as scratch:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        directory = Path(scratch)
        directory.chmod(0o755)
        (directory / "zone").write_text("\n".join(zone_file(services, endpoints)) + "\n")
        (directory / "conf").write_text(
            f"server:\n  rundir: {scratch}\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n"
            f"database:\n  storage: {scratch}\nlog:\n  - target: stderr\n    any: warning\n"
            f"zone:\n  - domain: cluster.local\n    file: {scratch}/zone\n    zonefile-sync: -1\n"
        )
        process = subprocess.Popen(["knotd", "-c", str(directory / "conf")])
        try:
            _wait_for(port)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, seconds: float = 30) -> None:
    """Until the last Service's name is answered."""
    query = b"ab\1\0\0\1\0\0\0\0\0\0\7cluster\5local\0\0\6\0\1"
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        asking.connect(("127.0.0.1", port))
        while time.monotonic() < end:
            try:
                asking.send(query)
                if asking.recv(512)[3] & 0xF == 0:
                    return
            except OSError:
                time.sleep(0.05)
    raise TimeoutError("Knot did not load the zone")


def compare(ours: tuple[int, int], peer: tuple[int, int] | None, services: int, seconds: int, runs: int) -> None:
    for mix, extra in MIXES.items():
        with data_file(mix, services) as data:
            drive(*ours, data, 1, *extra)  # every answer has been made once
            rates = []
            found = []
            for _ in range(runs):
                found.append(drive(*ours, data, seconds, *extra))
                if peer is not None:
                    rates.append(drive(*peer, data, seconds, *extra))
        rate, per_cpu = (statistics.median(one[n] for one in found) for n in (0, 1))
        show(f"dns_{mix}", rate, "questions/s")
        show(f"dns_{mix}_per_cpu", per_cpu, "questions/s")
        show(f"dns_{mix}_lost", max(one[2] for one in found), "%")
        if rates:
            theirs, their_cpu = (statistics.median(one[n] for one in rates) for n in (0, 1))
            show(f"dns_{mix}_knot", theirs, "questions/s")
            show(f"dns_{mix}_to_knot", rate / theirs, "times")
            show(f"dns_{mix}_per_cpu_to_knot", per_cpu / their_cpu, "times")


def steady(name: str, port: int, pid: int, services: int, seconds: int) -> None:
    with data_file("0x20", services) as data:
        found = latencies(port, pid, data, seconds, STEADY_RATE)
    show(f"{name}_rate", len(found) / seconds, "questions/s")
    show(f"{name}_p50", found[len(found) // 2] * 1000, "ms")
    show(f"{name}_p99", found[len(found) * 99 // 100] * 1000, "ms")


def main() -> None:
    chosen = options(__doc__, services=10_000, endpoints=3, seconds=3, runs=5)
    services, endpoints = chosen.services, chosen.endpoints
    with tempfile.TemporaryDirectory() as scratch:
        write_lists(Path(scratch), services, endpoints)
        with running(Path(scratch)) as server:
            show("dns_start_to_ready", server.seconds, "s")
            show("dns_start_to_ready_cpu", server.cpu, "s")
            show("dns_memory_at_ready", server.memory / 1e6, "MB")
            if shutil.which("knotd"):
                with knot(services, endpoints) as peer:
                    compare((server.port, server.pid), peer, services, chosen.seconds, chosen.runs)
                    steady("dns_steady_knot", *peer, services, chosen.seconds)
            else:
                print("# Knot is not installed: nothing beside it")
                compare((server.port, server.pid), None, services, chosen.seconds, chosen.runs)
            steady("dns_steady", server.port, server.pid, services, chosen.seconds)
            memory, entries = server.ask("memory")
            show("dns_memory_after_questions", memory / 1e6, "MB")
            show("dns_answers_made", entries, "answers")


if __name__ == "__main__":
    main()
