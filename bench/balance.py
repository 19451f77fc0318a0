"""How evenly connections are spread, and how few move: real packets through the kernel. Prints `name value unit` lines.

    PYTHONPATH=src:bench:tests python bench/balance.py [--quick]

One namespace is client, node and all pods: every pod's address is on its loopback. A connection is a datagram from a
port or an address of its own; where it ends is read from what the receiver is told about it. A p-value near 0 says that
chance hardly explains the spread; over many runs p is anywhere between 0 and 1.
"""

from __future__ import annotations

import argparse
import math
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import mean

from figures import show
from kubesvc.kernel.nft.connection import Connection
from kubesvc.proxy import maps
from kubesvc.proxy.balance import table
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import SLOT_TABLE, TABLE, pack, port_data
from kubesvc.proxy.nftables import NftablesBackend
from support.net import Lab, Namespace
from support.proxy import NODE, NODE_IP, RANGES, service, slice_of

CLUSTER_IP, EXTERNAL, PORT = "10.96.0.10", "203.0.113.7", 53
PORTS = [{"name": "dns", "port": PORT, "protocol": "UDP", "nodePort": 30053}]
TARGETS = [{"name": "dns", "port": 8053, "protocol": "UDP"}]
_IP_PKTINFO = 8  # linux/in.h


def pod(number: int) -> str:
    return str(IPv4Address("10.244.1.1") + number)


def client(number: int) -> str:
    return str(IPv4Address("10.244.128.1") + number)


@dataclass
class World:
    """A Service in a namespace, and the ear that hears all its pods."""

    node: Namespace
    ear: socket.socket
    frontends: Frontends
    backend: NftablesBackend
    slice: object = None

    def put(self, pods: Sequence[str], weights: Mapping[str, int] | None = None) -> float:
        """Its endpoints from now on. Returns the CPU seconds that took, the kernel's included."""
        written = ",".join(f"{address}={weight}" for address, weight in (weights or {}).items())
        changed = slice_of(*pods, ports=TARGETS, weights=written)
        started = time.process_time()
        self.frontends.set_slice(self.slice, changed)  # type: ignore[arg-type]
        self.backend.apply(self.frontends.take(), "1")
        self.slice = changed
        return time.process_time() - started

    def connect(self, source: str, port: int, to: str = CLUSTER_IP, to_port: int = PORT) -> str:
        """The pod at which a new connection ends."""
        with self.node.socket(socket.SOCK_DGRAM) as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asking.bind((source, port))
            asking.sendto(b"?", (to, to_port))
        _, notes, _, _ = self.ear.recvmsg(16, 64)
        return socket.inet_ntoa(notes[0][2][8:12])  # struct in_pktinfo: ipi_addr


@contextmanager
def world(pods: int, clients: int = 1, **spec: object) -> Iterator[World]:
    """With the addresses of so many pods and clients."""
    with Lab("balance-bench") as lab:
        node = lab.namespace("node")
        addresses = [NODE_IP, EXTERNAL, *map(pod, range(pods)), *map(client, range(clients))]
        script = "\n".join(f"addr add {address}/32 dev lo" for address in addresses)
        node.run("sh", "-c", f"ip -batch - <<'END'\n{script}\nroute add 10.96.0.0/16 dev lo\nEND")
        ear = node.socket(socket.SOCK_DGRAM)
        ear.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        ear.bind(("0.0.0.0", 8053))
        ear.settimeout(5)
        backend = NftablesBackend(node.call(Connection), RANGES)  # type: ignore[arg-type]
        frontends = Frontends(Locality(NODE), [pack(NODE_IP)])
        made = service(ports=PORTS, type="NodePort", externalIPs=[EXTERNAL], **spec)
        frontends.set_service(made.key, made)
        backend.resync(frontends.take())
        yield World(node, ear, frontends, backend)
        backend.close()
        ear.close()


def sources(count: int) -> Iterable[tuple[str, int]]:
    """Source address and port of so many connections."""
    return ((client(0), 10_000 + n) for n in range(count))


def p_value(statistic: float, freedom: int) -> float:
    """How often chance alone gives a chi-square this great (Wilson and Hilferty's approximation)."""
    spread = 2 / (9 * freedom)
    return 0.5 * math.erfc(((statistic / freedom) ** (1 / 3) - 1 + spread) / math.sqrt(2 * spread))


def chi_square(name: str, found: Counter[str], expected: Mapping[str, float]) -> None:
    total = found.total()
    shares = sum(expected.values())
    statistic = sum(
        (found[place] - total * share / shares) ** 2 / (total * share / shares) for place, share in expected.items()
    )
    show(f"{name}.connections", total, "connections")
    show(f"{name}.chi_square", statistic, f"with {len(expected) - 1} degrees of freedom")
    show(f"{name}.p_value", p_value(statistic, len(expected) - 1), "")


def random_choice(connections: int) -> None:
    pods = [pod(n) for n in range(10)]
    with world(len(pods)) as here:
        here.put(pods)
        found = Counter(here.connect(*source) for source in sources(connections))
    chi_square("random.10_endpoints", found, dict.fromkeys(pods, 1.0))


def weights(connections: int) -> None:
    wanted = {pod(0): 50, pod(1): 30, pod(2): 15, pod(3): 5, pod(4): 0}
    with world(len(wanted), annotations={"kubesvc.dev/balance": "weighted"}) as here:
        here.put(list(wanted), wanted)
        found = Counter(here.connect(*source) for source in sources(connections))
    chi_square("weights.50_30_15_5", found, {place: float(w) for place, w in wanted.items() if w})
    show("weights.drained", found[pod(4)], "connections to the endpoint of weight 0")
    for place, weight in wanted.items():
        show(f"weights.of_{weight}", 100 * found[place] / found.total(), "% of the connections")


def maglev_table() -> None:
    """Every one of 100 endpoints leaves once."""
    endpoints = [pack(pod(n)) + port_data(8053) for n in range(100)]
    started = time.process_time()
    before = table(tuple((endpoint, 1) for endpoint in endpoints), SLOT_TABLE)
    show("maglev.table_cpu", 1000 * (time.process_time() - started), "ms to compute")
    counts = Counter(before).values()
    share = SLOT_TABLE / len(endpoints)
    show("maglev.slots", SLOT_TABLE, "slots")
    show("maglev.least", 100 * min(counts) / share, "% of an even share")
    show("maglev.most", 100 * max(counts) / share, "% of an even share")
    moved = []
    for gone in endpoints:
        after = table(tuple((endpoint, 1) for endpoint in endpoints if endpoint != gone), SLOT_TABLE)
        others = [(a, b) for a, b in zip(before, after, strict=True) if a != gone]
        moved.append(100 * sum(a != b for a, b in others) / len(others))
    show("maglev.others_moved_mean", mean(moved), "% of the others' slots, one of 100 leaves")
    show("maglev.others_moved_max", max(moved), "% of the others' slots, one of 100 leaves")


def maglev_packets(connections: int) -> None:
    """The same connections, in one kernel with 100 endpoints and in another with 99."""
    pods = [pod(n) for n in range(100)]
    found = []
    for there in (pods, [place for place in pods if place != pod(42)]):
        with world(len(pods), annotations={"kubesvc.dev/balance": "maglev"}) as here:
            here.put(there)
            found.append({source: here.connect(*source) for source in sources(connections)})
    before, after = found
    chi_square("maglev.100_endpoints", Counter(before.values()), dict.fromkeys(pods, 1.0))
    others = [source for source in before if before[source] != pod(42)]
    moved = sum(before[source] != after[source] for source in others)
    show("maglev.flows_moved", 100 * moved / len(others), f"% of {len(others)} flows of the others, one of 100 leaves")


def maglev_cost() -> None:
    """One endpoint replaced: cluster IP, node port and external IP at once."""
    pods = [pod(n) for n in range(100)]
    with world(101, annotations={"kubesvc.dev/balance": "maglev"}) as here:
        show("maglev.first_programming_cpu", 1000 * here.put(pods), "ms, three frontends")
        show("maglev.replaced_cpu", 1000 * here.put([*pods[:-1], pod(100)]), "ms, three frontends")


def affinity(clients: int) -> None:
    """Each client asks five times at each of the cluster IP, the external IP and the node port."""
    pods = [pod(n) for n in range(10)]
    with world(len(pods), clients, sessionAffinity="ClientIP") as here:
        here.put(pods)
        places = [(CLUSTER_IP, PORT), (EXTERNAL, PORT), (NODE_IP, 30053)]
        found: dict[str, set[str]] = {}
        for number in range(clients):
            source = client(number)
            found[source] = {here.connect(source, 0, *place) for place in places for _ in range(5)}
        remembered = here.backend._nft.count(TABLE, maps.AFFINITY["4"])  # type: ignore[attr-defined]
        first = Counter(next(iter(ends)) for ends in found.values())
    show("affinity.kept", sum(len(ends) == 1 for ends in found.values()), f"of {clients} clients meet one pod")
    show("affinity.remembered", remembered, "elements")
    chi_square("affinity.10_endpoints", first, dict.fromkeys(pods, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the connections")
    scale = 0.1 if parser.parse_args().quick else 1.0
    random_choice(int(20_000 * scale))
    weights(int(20_000 * scale))
    maglev_table()
    maglev_packets(int(20_000 * scale))
    maglev_cost()
    affinity(int(1_000 * scale))


if __name__ == "__main__":
    main()
