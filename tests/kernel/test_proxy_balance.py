"""Weights and maglev with real packets: TCP, UDP and SCTP, both families."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kubesvc.kernel.nft.jenkins import jhash, scale
from kubesvc.proxy.balance import table
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import HASH_SEED, SCTP, SLOT_TABLE, TCP, UDP, pack, port_data
from kubesvc.proxy.nftables import NftablesBackend
from support import sctp
from support.flows import HOSTS, PODS, RANGES
from support.net import DEADLINE, Lab, ask
from support.proxy import NODE, endpoint, service, slice_of
from support.wires import Wires, build

PORTS = [
    {"name": "http", "port": 80, "nodePort": 30080},
    {"name": "dns", "port": 53, "protocol": "UDP"},
    {"name": "sctp", "port": 80, "protocol": "SCTP"},
]
TARGETS = [
    {"name": "http", "port": 8080},
    {"name": "dns", "port": 8080, "protocol": "UDP"},
    {"name": "sctp", "port": 8080, "protocol": "SCTP"},
]
CLUSTER_IPS = {"4": "10.96.0.10", "6": "fd00:96::10"}
ALL = {"pod1": 1, "pod2": 1, "pod3": 1}


@dataclass
class Balanced:
    """A Service in front of the three pods."""

    wires: Wires
    frontends: Frontends
    now: dict[str, Any] = field(default_factory=dict)  # family -> slice

    def put(self, pods: dict[str, int], **annotations: str) -> None:
        """Its pods and their weights from now on, and how it is balanced."""
        given = {f"kubesvc.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
        ips = [CLUSTER_IPS[f] for f in "46"]
        made = service(clusterIPs=ips, type="NodePort", ports=PORTS, annotations=given)
        self.frontends.set_service(made.key, made)
        for family in "46":
            changed = slice_of(
                *(endpoint(PODS[family][pod], node="node2" if pod == "pod3" else NODE) for pod in pods),
                name=f"web-{family}",
                ports=TARGETS,
                family=f"IPv{family}",
                weights=",".join(f"{PODS[family][pod]}={weight}" for pod, weight in pods.items()),
            )
            self.frontends.set_slice(self.now.get(family), changed)
            self.now[family] = changed
        self.wires.backend.apply(self.frontends.take(), "1")

    def asks(self, family: str, port: int = 80, source_port: int = 0) -> str:
        """Who answers the client, from this port of its."""
        kind = socket.SOCK_DGRAM if port == 53 else socket.SOCK_STREAM
        version = socket.AF_INET if family == "4" else socket.AF_INET6
        with self.wires.at["client"].socket(kind, version) as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asking.bind((HOSTS[family]["client"], source_port))
            asking.settimeout(DEADLINE)
            asking.connect((CLUSTER_IPS[family], port))
            asking.send(b"?")
            return asking.recv(512).decode().partition(" ")[0]


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with Lab("balance") as lab:
        made = build(lab)
        yield made
        made.backend.close()


@pytest.fixture
def balanced(wires: Wires) -> Balanced:
    nft = wires.backend._nft
    wires.at["node"].run("sh", "-c", "nft delete table inet kubesvc 2>/dev/null; conntrack -F 2>/dev/null; true")
    wires.backend = NftablesBackend(nft, RANGES)
    frontends = Frontends(Locality(NODE), [pack(HOSTS[f]["node"]) for f in "46"])
    wires.backend.resync(frontends.take())
    return Balanced(wires, frontends)


def predicted(family: str, protocol: int, port: int, source_port: int, pods: tuple[str, ...] = tuple(ALL)) -> str:
    """The pod that the table and the hash say, of the client's connection."""
    by_address = {pack(PODS[family][pod]): pod for pod in pods}
    slots = table(tuple((pod + port_data(8080), 1) for pod in sorted(by_address)), SLOT_TABLE)
    words = [pack(HOSTS[family]["client"]), pack(CLUSTER_IPS[family]), bytes((protocol, 0, 0, 0))]
    words += [port_data(source_port), port_data(port)]
    return by_address[slots[scale(jhash(b"".join(words), HASH_SEED), SLOT_TABLE)][:-4]]


@pytest.mark.parametrize("family", ["4", "6"])
@pytest.mark.parametrize(("protocol", "port"), [(TCP, 80), (UDP, 53)])
def test_the_kernel_chooses_as_the_table_says(balanced: Balanced, family: str, protocol: int, port: int) -> None:
    """Sixty connections from sixty ports: each at the very pod that every node would choose; and all pods get some."""
    balanced.put(ALL, balance="maglev")
    found = {source: balanced.asks(family, port, source) for source in range(20000, 20060)}
    assert found == {source: predicted(family, protocol, port, source) for source in found}
    assert set(found.values()) == set(ALL)


@pytest.mark.parametrize("family", ["4", "6"])
def test_sctp_is_hashed_too(balanced: Balanced, family: str) -> None:
    """An INIT from one port goes to the slot's pod, again and again."""
    balanced.put(ALL, balance="maglev")
    pods = {name: balanced.wires.at[name] for name in ALL}
    with sctp.listening(pods, socket.AF_INET6 if family == "6" else socket.AF_INET) as ears:
        found = {sctp.knock(balanced.wires.at["client"], CLUSTER_IPS[family], 80, ears, DEADLINE)[0] for _ in range(3)}
    assert found == {predicted(family, SCTP, 80, 5000)}


def test_the_table_follows_an_endpoint_that_leaves(balanced: Balanced) -> None:
    """Connections of the pod that left find others; those of the others stay, as far as the table says."""
    balanced.put(ALL, balance="maglev")
    before = {source: balanced.asks("4", 53, source) for source in range(21000, 21040)}
    balanced.put({"pod1": 1, "pod3": 1}, balance="maglev")
    balanced.wires.at["node"].run("sh", "-c", "conntrack -F 2>/dev/null; true")
    after = {source: balanced.asks("4", 80, source) for source in range(22000, 22040)}
    assert "pod2" in before.values()
    assert set(after.values()) == {"pod1", "pod3"}
    assert after == {source: predicted("4", TCP, 80, source, ("pod1", "pod3")) for source in after}


def test_by_client_one_pod_whatever_the_port(balanced: Balanced) -> None:
    """Cluster IP of either protocol and the node port, without anything remembered."""
    balanced.put(ALL, balance="maglev", balance_key="client")
    for family in "46":
        found = {balanced.asks(family, port) for port in (80, 53) for _ in range(6)}
        found |= {ask(balanced.wires.at["client"], HOSTS[family]["node"], 30080)[0] for _ in range(6)}
        assert len(found) == 1


@pytest.mark.parametrize("family", ["4", "6"])
def test_weights_are_shares_of_the_connections(balanced: Balanced, family: str) -> None:
    """Six of ten, three and one: 400 connections, bounds that chance exceeds once in 10^9 runs."""
    balanced.put({"pod1": 6, "pod2": 3, "pod3": 1}, balance="weighted")
    found = Counter(balanced.asks(family) for _ in range(400))
    for pod, share in (("pod1", 0.6), ("pod2", 0.3), ("pod3", 0.1)):
        assert abs(found[pod] - 400 * share) < 7 * (400 * share * (1 - share)) ** 0.5


def test_weight_0_drains(balanced: Balanced) -> None:
    """No new connection while another is there; a connection that is there goes on; the last one drains in vain."""
    with balanced.wires.at["client"].socket(socket.SOCK_DGRAM) as flow:
        flow.settimeout(DEADLINE)
        flow.connect((CLUSTER_IPS["4"], 53))
        for weights in ({"pod1": 1}, {"pod1": 1, "pod2": 1}, {"pod1": 0, "pod2": 1}):
            balanced.put(weights, balance="weighted")
            flow.send(b"?")
            assert flow.recv(512).startswith(b"pod1")
    assert {balanced.asks("4") for _ in range(30)} == {"pod2"}
    balanced.put({"pod1": 0, "pod2": 0}, balance="weighted")
    assert {balanced.asks("4") for _ in range(40)} == {"pod1", "pod2"}


def test_without_the_annotation_weights_mean_nothing(balanced: Balanced) -> None:
    """A pod's weight is for Services that ask."""
    balanced.put({"pod1": 0, "pod2": 100})
    assert {balanced.asks("4") for _ in range(40)} == {"pod1", "pod2"}
