"""DNS while the cluster changes: questions/s kept under 1,000 changes/s; from an API write to the new answer.

    PYTHONPATH=src:bench:tests python bench/dns_churn.py [--services 10000] [--seconds 5] [--runs 3]

Changes are lines of a watch in the server's own process: decoding them counts, writing them doesn't. Each gives another
Service other endpoints, and dnsperf asks for all Services. The delay is taken with an API server, a DNS server and a
client that asks again and again in one process: the API's own work, and the client's, are in it.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import tempfile
import time
from pathlib import Path

from dns_cluster import data_file, drive, options, running, write_lists
from figures import show, show_percentiles
from kubesvc.api.registry import ENDPOINT_SLICE, SERVICE
from kubesvc.dns import wire
from kubesvc.dns.config import DnsConfig
from kubesvc.dns.main import run
from support.apiserver import local_session

RATE = 1000  # changes/s
WRITES = 300


def kept(services: int, endpoints: int, seconds: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as scratch, data_file("0x20", services) as data:
        write_lists(Path(scratch), services, endpoints, RATE * (seconds + 2) * (runs + 1))
        quiet, busy = [], []
        with running(Path(scratch)) as server:
            drive(server.port, server.pid, data, 1, "-e")
            quiet = [drive(server.port, server.pid, data, seconds, "-e") for _ in range(runs)]
            server.connection.send(RATE)
            told, began = 0, time.perf_counter()
            busy = [drive(server.port, server.pid, data, seconds, "-e") for _ in range(runs)]
            took = time.perf_counter() - began
            told = server.ask("told")
        show("dns_changes", told / took, "changes/s")
        for number, name in enumerate(("", "_per_cpu")):
            before, after = (statistics.median(one[number] for one in all_runs) for all_runs in (quiet, busy))
            show(f"dns_quiet{name}", before, "questions/s")
            show(f"dns_changing{name}", after, "questions/s")
            show(f"dns_changing{name}_kept", after / before * 100, "%")


async def delays() -> list[float]:
    """Milliseconds from before a slice is patched until the new address is answered."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        udp.bind(("127.0.0.1", 0))
        client.connect(udp.getsockname())
        client.setblocking(False)
        async with local_session() as session:
            config = DnsConfig("node1", "192.0.2.1", udp.getsockname()[1], (udp,), (), drain_seconds=0)
            server = asyncio.create_task(run(session, config))
            meta = {"namespace": "default", "name": "db", "labels": {"kubernetes.io/service-name": "db"}}
            await session.create(SERVICE, {"metadata": meta, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}})
            await session.create(ENDPOINT_SLICE, {"metadata": meta, "addressType": "IPv4", "endpoints": []})
            found = []
            for number in range(WRITES):
                address = bytes((10, 244, number >> 8, number & 255))
                text = ".".join(map(str, address))
                began = time.perf_counter()
                await session.patch(ENDPOINT_SLICE, "default", "db", {"endpoints": [{"addresses": [text]}]})
                await _answered(client, address)
                found.append((time.perf_counter() - began) * 1000)
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            return found


async def _answered(client: socket.socket, address: bytes) -> None:
    question = wire.question(wire.encode_name("db.default.svc.cluster.local"), wire.A)
    loop = asyncio.get_running_loop()
    while True:
        await loop.sock_sendall(client, b"ab" + wire.QUERY_PLAIN + question)
        if (await loop.sock_recv(client, 512)).endswith(address):
            return


def main() -> None:
    chosen = options(__doc__, services=10_000, endpoints=3, seconds=5, runs=3)
    kept(chosen.services, chosen.endpoints, chosen.seconds, chosen.runs)
    show_percentiles("dns_write_to_answer", asyncio.run(delays()), "ms")


if __name__ == "__main__":
    main()
