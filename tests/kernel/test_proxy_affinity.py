"""ClientIP affinity with real packets: TCP and UDP, both families, cluster IPs, node ports, load balancer addresses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kubesvc.kernel.nft.transaction import AddElements, Transaction
from kubesvc.proxy import maps
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import AFFINITY_SIZE, TABLE, pack, service_id
from kubesvc.proxy.nftables import NftablesBackend
from support.flows import HOSTS, PODS, RANGES
from support.lists import Api
from support.net import DEADLINE, Lab, ask
from support.proxied import proxied
from support.proxy import NODE, NODE_IP, endpoint, service, slice_of
from support.wires import Wires, build

PORTS = [
    {"name": "http", "port": 80, "nodePort": 30080},
    {"name": "alt", "port": 90, "nodePort": 30090},
    {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
]
TARGETS = [
    {"name": "http", "port": 8080},
    {"name": "alt", "port": 8080},
    {"name": "dns", "port": 8080, "protocol": "UDP"},
]
ADDRESSES = {"4": ("10.96.0.10", "172.29.8.10"), "6": ("fd00:96::10", "fd00:29:8::10")}
MARKING = """
table inet others {
  counter kept {}
  counter lost {}
  chain early { type filter hook prerouting priority mangle; iifname "eth0" ct state new ct mark set 0x00000080; }
  chain late {
    type filter hook postrouting priority 200
    iifname "eth0" ct state new ct mark 0x00000080 counter name kept
    iifname "eth0" ct state new ct mark != 0x00000080 counter name lost
  }
}
"""
RENEWED = 1  # seconds a session lasts where a test sees it renewed
TWELVE = 12  # connections: by chance they all meet one of three pods once in 180,000 runs


@dataclass
class Sticky:
    """A Service with affinity in front of three pods."""

    wires: Wires
    frontends: Frontends
    now: dict[str, Any]  # family -> slice

    def put(self, *pods: str, timeout: int = 3600, **spec: Any) -> None:
        """Its pods from now on."""
        config = {"clientIP": {"timeoutSeconds": timeout}}
        spec = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": config} | spec
        made = service(
            clusterIPs=[ADDRESSES[f][0] for f in "46"],
            type="LoadBalancer",
            ports=PORTS,
            status_ips=[ADDRESSES[f][1] for f in "46"],
            **spec,
        )
        self.frontends.set_service(made.key, made)
        for family in "46":
            endpoints = [endpoint(PODS[family][pod], node="node2" if pod == "pod3" else NODE) for pod in pods]
            changed = slice_of(*endpoints, name=f"web-{family}", ports=TARGETS, family=f"IPv{family}")
            self.frontends.set_slice(self.now.get(family), changed)
            self.now[family] = changed
        self.wires.backend.apply(self.frontends.take(), "1")

    def asks(self, client: str, address: str, port: int = 80, times: int = TWELVE) -> set[str]:
        where = self.wires.at[client]
        return {ask(where, address, port, udp=port in (53, 30053))[0] for _ in range(times)}

    def asks_without_pause(self, client: str, address: str, port: int = 80) -> int:
        """Pods met in 2.5 time-outs, none half a one apart; begins again where the machine paused so long."""
        deadline = time.monotonic() + DEADLINE
        while True:
            begun = last = time.monotonic()
            longest, found = 0.0, set[str]()
            while time.monotonic() < begun + 2.5 * RENEWED:
                found |= self.asks(client, address, port, times=1)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
                time.sleep(RENEWED / 20)  # a masqueraded port that comes again too soon waits a second: TIME_WAIT
            if longest < RENEWED / 2:
                return len(found)
            assert time.monotonic() < deadline, f"the machine pauses for {longest:.1f} s"

    def remembered(self, map_: str) -> int:
        nft = self.wires.backend._nft
        return len(nft.elements(TABLE, next(m for m in maps.DYNAMIC_MAPS if m.name == map_)))


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with Lab("sticky") as lab:
        made = build(lab)
        yield made
        made.backend.close()


@pytest.fixture
def sticky(wires: Wires) -> Sticky:
    nft = wires.backend._nft
    wires.at["node"].run("sh", "-c", "nft delete table inet kubesvc 2>/dev/null; conntrack -F 2>/dev/null; true")
    wires.backend = NftablesBackend(nft, RANGES)
    frontends = Frontends(Locality(NODE), [pack(HOSTS[f]["node"]) for f in "46"])
    wires.backend.resync(frontends.take())
    made = Sticky(wires, frontends, {})
    made.put("pod1", "pod2", "pod3")
    return made


@pytest.mark.parametrize("family", ["4", "6"])
@pytest.mark.parametrize("client", ["pod1", "node", "client"])
def test_a_client_keeps_one_pod_at_every_port(sticky: Sticky, client: str, family: str) -> None:
    """TCP and UDP, at the cluster IP and at the load balancer's address."""
    for address in ADDRESSES[family]:
        found = sticky.asks(client, address)
        assert len(found) == 1
        assert sticky.asks(client, address, 90) == found
        assert sticky.asks(client, address, 53) == found


@pytest.mark.parametrize("family", ["4", "6"])
def test_one_memory_of_a_client_serves_all_a_service_has(sticky: Sticky, family: str) -> None:
    """Cluster IP, load balancer's address, node ports, TCP and UDP; from outside, from a pod, from the node itself."""
    for client in ("client", "pod1", "node"):
        (pod,) = sticky.asks(client, HOSTS[family]["node"], 30053, times=1)
        for address in ADDRESSES[family]:
            assert sticky.asks(client, address) == sticky.asks(client, address, 53) == {pod}
        for port in (30080, 30090, 30053):
            assert sticky.asks(client, HOSTS[family]["node"], port) == {pod}
    assert sticky.remembered(f"affinity{family}") == 3
    assert sticky.remembered(f"lent-marks{family}") == 0


@pytest.mark.parametrize("family", ["4", "6"])
def test_a_client_moves_when_its_pod_leaves(sticky: Sticky, family: str) -> None:
    """To one other pod, and stays there when the first comes back."""
    address = ADDRESSES[family][0]
    (first,) = sticky.asks("client", address)
    sticky.put(*{"pod1", "pod2", "pod3"} - {first})
    (second,) = sticky.asks("client", address, 90)
    assert second != first
    sticky.put("pod1", "pod2", "pod3")
    assert sticky.asks("client", address) == {second}


def test_policy_local_moves_a_client_to_this_node(sticky: Sticky) -> None:
    """A session with a pod elsewhere ends; the one that follows sees the client's own address."""
    vip = ADDRESSES["4"][1]
    sticky.put("pod3")
    assert sticky.asks("client", vip) == {"pod3"}
    sticky.put("pod1", "pod2", "pod3", externalTrafficPolicy="Local")
    found = {ask(sticky.wires.at["client"], vip, 80) for _ in range(TWELVE)}
    assert len(found) == 1
    assert found <= {("pod1", HOSTS["4"]["client"]), ("pod2", HOSTS["4"]["client"])}


def test_connections_renew_a_session_and_its_end_is_the_kernels(sticky: Sticky) -> None:
    """Asked all the time it outlives its time-out; left alone it goes."""
    sticky.put("pod1", "pod2", "pod3", timeout=RENEWED)
    assert sticky.asks_without_pause("client", ADDRESSES["4"][0]) == 1
    deadline = time.monotonic() + DEADLINE
    while sticky.remembered("affinity4"):
        assert time.monotonic() < deadline


def test_a_restart_forgets_nobody(sticky: Sticky) -> None:
    """The memory is the kernel's; a proxy that adopts the table leaves it."""
    address = ADDRESSES["4"][0]
    found = sticky.asks("client", address)
    restarted = NftablesBackend(sticky.wires.backend._nft, RANGES)
    restarted.resync(sticky.frontends.everything())
    assert sticky.asks("client", address) == found


def test_connections_made_at_once_meet_one_pod(sticky: Sticky) -> None:
    """A browser's: the first to be remembered decides."""
    address = ADDRESSES["4"][0]
    for _ in range(10):
        sticky.wires.at["node"].run("nft", "flush", "map", "inet", TABLE, "affinity4")
        found: list[str] = []
        gate = threading.Barrier(6)

        def connect(gate: threading.Barrier = gate, found: list[str] = found) -> None:
            gate.wait(DEADLINE)
            found.append(ask(sticky.wires.at["client"], address, 80)[0])

        threads = [threading.Thread(target=connect) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6
        assert len(set(found)) == 1


@pytest.mark.parametrize("family", ["4", "6"])
def test_a_connections_mark_is_borrowed_and_given_back(sticky: Sticky, family: str) -> None:
    """Somebody marks connections before us: node ports and cluster IP lead to one pod, and the mark is theirs after."""
    node = sticky.wires.at["node"]
    node.run("nft", MARKING)
    try:
        found = sticky.asks("client", HOSTS[family]["node"], 30080)
        assert len(found) == 1
        assert sticky.asks("client", ADDRESSES[family][0], 53) == found
        listed = json.loads(node.run("nft", "-j", "list", "table", "inet", "others"))["nftables"]
        counts = {o["counter"]["name"]: o["counter"]["packets"] for o in listed if "counter" in o}
        assert counts["kept"] >= 2 * TWELVE, "a packet sent again is counted again"
        assert counts["lost"] == 0
        assert sticky.remembered(f"affinity{family}") == 1
    finally:
        node.run("nft", "delete", "table", "inet", "others")


def test_a_full_memory_serves_newcomers_without_keeping_them(sticky: Sticky) -> None:
    """As many as the map is for: who is remembered stays with his pod, a newcomer meets any, nothing grows."""
    nft = sticky.wires.backend._nft
    address = ADDRESSES["4"][0]
    mine = sticky.asks("client", address)
    crowd = Transaction()
    clients = {pack(f"100.{n >> 16}.{n >> 8 & 255}.{n & 255}") + bytes(4): bytes(4) for n in range(AFFINITY_SIZE - 1)}
    crowd.add(AddElements(TABLE, maps.AFFINITY["4"], clients))
    nft.commit(crowd)
    assert sticky.remembered("affinity4") == AFFINITY_SIZE
    assert len(sticky.asks("pod1", address, times=60)) == 3  # misses one of three pods once in 10^10 runs
    assert sticky.asks("client", address) == mine
    assert sticky.remembered("affinity4") == AFFINITY_SIZE


async def test_metrics_say_how_full_the_memory_is() -> None:
    """Remembered clients and how many there may be, by family."""
    with Lab("sticky-metrics") as lab:
        node = lab.namespace("node")
        node.ip("addr", "add", f"{NODE_IP}/32", "dev", "lo")
        asked = Api(services=[service(sessionAffinity="ClientIP")], endpointslices=[slice_of(NODE_IP)])
        async with proxied(node, asked) as here:
            for _ in range(3):
                with node.socket() as asking, pytest.raises(ConnectionRefusedError):
                    asking.connect(("10.96.0.10", 80))
            shown = here.attendants._answer_metrics("/metrics").body
    assert 'kubesvc_affinity_clients{family="IPv4"} 1.0\n' in shown
    assert 'kubesvc_affinity_clients{family="IPv6"} 0.0\n' in shown
    assert f'kubesvc_affinity_capacity{{family="IPv4"}} {float(AFFINITY_SIZE)}\n' in shown


def test_a_session_of_udp_is_renewed_by_new_flows(sticky: Sticky) -> None:
    """Each datagram from another port is a connection."""
    sticky.put("pod1", "pod2", "pod3", timeout=RENEWED)
    assert sticky.asks_without_pause("client", ADDRESSES["6"][0], 53) == 1
    assert sticky.remembered("affinity6") <= 1


def test_an_administrator_can_read_who_is_remembered(sticky: Sticky) -> None:
    """Clients, addresses, time-outs; and every rule as its text says."""
    sticky.asks("client", ADDRESSES["4"][0])
    sticky.asks("client", HOSTS["6"]["node"], 30080)
    printed = sticky.wires.at["node"].run("nft", "list", "table", "inet", TABLE)
    number = f"0x{int.from_bytes(service_id(('default', 'web')), 'little'):08x}"
    assert f"{ADDRESSES['4'][0]} . tcp . 80 : {number}" in printed
    for family in "46":
        assert f"{HOSTS[family]['client']} . {number} timeout 1h expires" in printed
    assert "size 65536" in printed
