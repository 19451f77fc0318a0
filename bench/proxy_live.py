"""From a write at the API to the kernel: `kubesvc proxy` as a process, an API server beside it, both over TLS.

    PYTHONPATH=src:bench:tests python bench/proxy_live.py [COUNT ...]      100, 10,000 and 100,000 Services by default

`start`: from the process' start (the interpreter's and its imports' included) to "in force", lists included. `sent`:
from before the write of a slice is sent to the kernel's notice that the change is in force; `written`: from the answer.
`cpu`: what the proxy used for a change, which a busy machine doesn't change. Server, proxy, writer share the cores.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from figures import show, show_percentiles
from kubesvc.demo.programmed import RemovalWatch
from kubesvc.kernel import netns
from kubesvc.store.protocol import Write
from kubesvc.store.sqlite import SqliteStore
from proxy import scratch, service_tree, slice_tree
from support.box import KUBESVC
from support.serving import STORE, Served
from wire import Wire

SIZES = (100, 10_000, 100_000)
ROUNDS = 500
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node0", "uid": "n0"},
    "spec": {"podCIDRs": ["10.128.0.0/9"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]},
}
FLAGS = ("--hostname-override=node0", "--service-cluster-ip-range=10.96.0.0/12", "--cluster-cidr=10.128.0.0/9")
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
TICKS = os.sysconf("SC_CLK_TCK")


async def fill(store: Path, count: int) -> None:
    """Straight into the store, as the API server writes it."""
    opened = SqliteStore(store)
    writes = [Write("core/nodes/-/node0", msgspec.json.encode(NODE), 0)]
    for number in range(count):
        for key, tree in (
            (f"core/services/default/svc-{number}", service_tree(number + 16)),
            (f"discovery.k8s.io/endpointslices/default/svc-{number}-abcde", slice_tree(number)),
        ):
            tree["metadata"]["name"] = key.rpartition("/")[2]  # type: ignore[index]
            del tree["metadata"]["resourceVersion"]  # type: ignore[attr-defined]
            writes.append(Write(key, msgspec.json.encode(tree), 0))
    for start in range(0, len(writes), 100):
        await opened.commit(writes[start : start + 100])
    await opened.close()


class Kernel:
    """Tells when a transaction of anybody's was committed in this network namespace."""

    def __init__(self) -> None:
        self._socket = RemovalWatch._open(Path("/proc/self/ns/net"))
        self._socket.setblocking(False)

    def drain(self) -> None:
        while True:
            try:
                self._socket.recv(1 << 20)
            except BlockingIOError:
                return

    async def committed(self) -> float:
        await asyncio.get_running_loop().sock_recv(self._socket, 1 << 20)
        return time.perf_counter()

    def close(self) -> None:
        self._socket.close()


def cpu(pid: int) -> float:
    """Seconds of processor the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int, what: str) -> float:
    """MB of Rss or Pss."""
    rolled = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{what}: +(\d+)", rolled, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def start_proxy(kubeconfig: Path) -> tuple[subprocess.Popen[str], float]:
    """The running proxy, and the seconds until everything was in force."""
    began = time.perf_counter()
    words = [str(KUBESVC), "proxy", "--kubeconfig", str(kubeconfig), *FLAGS]
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if "in force" in line:
            return running, time.perf_counter() - began
    raise AssertionError(f"the proxy ended: {running.wait()}")


async def change(wire: Wire, kernel: Kernel, number: int, endpoints: Sequence[object]) -> tuple[float, float]:
    """Milliseconds from sending the write, and from its answer, until it is in force."""
    kernel.drain()
    heard = asyncio.ensure_future(kernel.committed())
    await asyncio.sleep(0)
    body = msgspec.json.encode({"endpoints": endpoints})
    sent = time.perf_counter()
    status, answer = await wire.ask("PATCH", f"{SLICES}/svc-{number}-abcde", body, "application/merge-patch+json")
    written = time.perf_counter()
    assert status == 200, answer
    done = await asyncio.wait_for(heard, 10)
    return (done - sent) * 1000, (done - written) * 1000


async def changes(count: int, served: Served, pid: int) -> float:
    """The median of what replacing an endpoint takes, in milliseconds."""
    wire, kernel = await Wire.open(served.kubeconfig), Kernel()
    sent: dict[str, list[float]] = {"replaced": [], "added": [], "removed": []}
    written: dict[str, list[float]] = {name: [] for name in sent}
    used = 0.0
    for turn in range(ROUNDS + 20):
        number = turn * 7919 % count
        three, other, four = (slice_tree(number, *how)["endpoints"] for how in ((3,), (3, 1), (4,)))
        if turn == 20:  # warm by now
            used = cpu(pid)
            for values in (*sent.values(), *written.values()):
                values.clear()
        for name, endpoints in (("replaced", other), ("", three), ("added", four), ("removed", three)):
            took, after = await change(wire, kernel, number, endpoints)  # type: ignore[arg-type]
            if name:
                sent[name].append(took)
                written[name].append(after)
    used = (cpu(pid) - used) * 1000 / (ROUNDS * 4)
    wire.close()
    kernel.close()
    for name in sent:
        show_percentiles(f"live_{name}_at_{count}_sent", sent[name], "ms")
        show_percentiles(f"live_{name}_at_{count}_written", written[name], "ms")
    show(f"live_change_at_{count}_cpu", used, "ms")
    return statistics.median(sent["replaced"])


async def measure(count: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        await fill(Path(directory) / STORE, count)
        served = Served(Path(directory))
        await served.start()
        running, took = start_proxy(served.kubeconfig)
        try:
            show(f"live_start_{count}x3", took, "s")
            show(f"live_start_{count}x3_cpu", cpu(running.pid), "s")
            await changes(count, served, running.pid)
            for what in ("Rss", "Pss"):
                show(f"live_memory_{count}x3_{what.lower()}", memory(running.pid, what), "MB")
        finally:
            running.kill()
            running.communicate()
            await served.close()


def main(sizes: Sequence[int]) -> None:
    show("load_before", os.getloadavg()[0], "processes")
    for count in sizes:
        with scratch() as path:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    netns.enter(path)
                    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
                    socket.create_server(("127.0.0.1", 0)).close()
                    asyncio.run(measure(count))
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or SIZES)
