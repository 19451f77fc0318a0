"""ClientIP affinity through the tracer: one pod for a client, at every port of a Service, until it leaves."""

from __future__ import annotations

from typing import Any

import pytest

from kubesvc.kernel.nft.memory import MemoryNft
from kubesvc.proxy import maps
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.fake import Connection, FakeBackend, Where
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import AFFINITY_SIZE, LENT, TABLE, TCP, TIMEOUTS, UDP, endpoint_ids, keep_for, pack, port_data
from support.proxy import NODE, NODE_IP, RANGES, endpoint, service, slice_of

CLIENT, OTHER = "192.0.2.1", "192.0.2.2"
CLUSTER_IP, VIP, LOCALHOST = "10.96.0.10", "203.0.113.20", "127.0.0.1"
PODS = tuple(f"10.244.{n % 2}.{n}" for n in range(1, 8))
PORTS = [
    {"name": "http", "port": 80, "nodePort": 30080},
    {"name": "metrics", "port": 90, "nodePort": 30090},
    {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
]
TARGETS = [
    {"name": "http", "port": 8080},
    {"name": "metrics", "port": 9090},
    {"name": "dns", "port": 1053, "protocol": "UDP"},
]


class Sticky:
    """A Service with affinity in a fake data plane. `asks` gives the pod that a connection ends at."""

    def __init__(self, timeout: int | None = 3600, **spec: Any) -> None:
        config = {} if timeout is None else {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": timeout}}}
        self.service = service(
            type="LoadBalancer",
            ports=PORTS,
            status_ips=[VIP],
            **{"sessionAffinity": "ClientIP"} | config | spec,
        )
        self._frontends = Frontends(Locality(NODE), [pack(NODE_IP), pack(LOCALHOST)], slot_table=31)
        self._frontends.set_service(self.service.key, self.service)
        self._slice = slice_of(ports=TARGETS)
        self.backend = FakeBackend(RANGES, [NODE_IP])
        self.put(*PODS)
        self.draw = 0

    def put(self, *pods: str, weights: str = "") -> None:
        """The pods there are now; those that end in an even number's network are here."""
        endpoints = [endpoint(pod, node=NODE if pod.startswith("10.244.0.") else "node2") for pod in pods]
        changed = slice_of(*endpoints, ports=TARGETS, weights=weights)
        self._frontends.set_slice(self._slice, changed)
        self._slice = changed
        changes = self._frontends.take()
        if self.nft.commits:
            self.backend.apply(changes, "1")
        else:
            self.backend.resync(self._frontends.everything())

    def become(self, **spec: Any) -> None:
        spec = {"sessionAffinity": "ClientIP"} | spec
        changed = service(type="LoadBalancer", ports=PORTS, status_ips=[VIP], **spec)
        self._frontends.set_service(changed.key, changed)
        self.backend.apply(self._frontends.take(), "1")

    def restart(self) -> None:
        """Another process, over the same kernel."""
        fresh = Frontends(Locality(NODE), [pack(NODE_IP)], slot_table=31)
        fresh.set_service(self.service.key, self.service)
        fresh.set_slice(None, self._slice)
        fresh.take()
        restarted = FakeBackend(RANGES, [NODE_IP])
        restarted.nft = restarted._nft = self.nft
        restarted.resync(fresh.everything())
        self._frontends, self.backend = fresh, restarted

    @property
    def nft(self) -> MemoryNft:
        return self.backend.nft

    def asks(self, client: str = CLIENT, address: str = CLUSTER_IP, port: int = 80, protocol: int = TCP) -> str:
        """Every connection draws another number."""
        self.draw += 1
        where = Where.NODE if client in (NODE_IP, LOCALHOST) else Where.WIRE
        found = self.backend.trace(Connection(client, address, protocol, port, where), draw=self.draw)
        return found.output.rpartition(":")[0] or found.output


def test_a_client_keeps_its_pod() -> None:
    """However many connections, one pod; another client has its own."""
    sticky = Sticky()
    mine = sticky.asks()
    theirs = sticky.asks(OTHER)
    assert mine != theirs
    assert {sticky.asks() for _ in range(20)} == {mine}
    assert {sticky.asks(OTHER) for _ in range(20)} == {theirs}


def test_the_nodes_own_programs_keep_theirs_on_localhost() -> None:
    """127.0.0.1 is a client like any other."""
    sticky = Sticky()
    mine = sticky.asks(LOCALHOST, LOCALHOST, 30080)
    assert {sticky.asks(LOCALHOST, LOCALHOST, 30080) for _ in range(20)} == {mine}


def test_without_affinity_it_does_not() -> None:
    """The same connections without affinity reach every pod."""
    sticky = Sticky(sessionAffinity="None")
    assert {sticky.asks() for _ in range(20)} == set(PODS)


@pytest.mark.parametrize("address", [CLUSTER_IP, VIP])
def test_one_pod_serves_a_client_at_every_port(address: str) -> None:
    """TCP and UDP, whatever the port."""
    sticky = Sticky()
    mine = sticky.asks(address=address)
    assert {sticky.asks(address=address, port=90) for _ in range(9)} == {mine}
    assert {sticky.asks(address=address, port=53, protocol=UDP) for _ in range(9)} == {mine}


@pytest.mark.parametrize("client", [CLIENT, NODE_IP, "10.244.0.77"])
def test_one_memory_serves_all_that_a_service_has(client: str) -> None:
    """Cluster IP, load balancer's address and node ports, of either protocol: one pod, one element."""
    sticky = Sticky()
    mine = sticky.asks(client, NODE_IP, 30053, UDP)
    for address, shift in ((NODE_IP, 30000), (CLUSTER_IP, 0), (VIP, 0)):
        for port, protocol in ((80, TCP), (90, TCP), (53, UDP)):
            assert {sticky.asks(client, address, port + shift, protocol) for _ in range(5)} == {mine}
    assert len(sticky.nft.elements(TABLE, maps.AFFINITY["4"])) == 1


def test_two_services_at_one_node_keep_a_client_apart() -> None:
    """A node's address is every Service's; what is remembered there is each one's own."""
    sticky = Sticky()
    other = service(
        "other",
        "10.96.0.11",
        type="NodePort",
        ports=[{"name": "http", "port": 80, "nodePort": 30081}],
        sessionAffinity="ClientIP",
    )
    sticky._frontends.set_service(other.key, other)
    sticky._frontends.set_slice(None, slice_of("10.244.9.1", "10.244.9.2", owner="other", ports=TARGETS))
    sticky.backend.apply(sticky._frontends.take(), "1")
    mine, theirs = sticky.asks(address=NODE_IP, port=30080), sticky.asks(address=NODE_IP, port=30081)
    assert theirs.startswith("10.244.9.")
    for _ in range(5):
        assert sticky.asks(address=NODE_IP, port=30080) == mine
        assert sticky.asks(address=NODE_IP, port=30081) == theirs == sticky.asks(address="10.96.0.11")


def test_somebody_elses_mark_is_back_when_the_connection_leaves() -> None:
    """The connection's mark is borrowed; who marks connections doesn't notice, and affinity holds."""
    sticky = Sticky()
    found = set()
    for port in range(41000, 41020):
        asked = Connection(CLIENT, NODE_IP, TCP, 30080, source_port=port, mark=0x80 + port % 2)
        found.add(sticky.backend.trace(asked, draw=port).output)
        assert sticky.backend.packet.connection_mark == asked.mark
    assert len(found) == 1
    assert sticky.asks(address=CLUSTER_IP) + ":8080" in found
    assert sticky.backend.packet.connection_mark == 0


def test_where_no_mark_can_be_kept_aside_the_connection_is_placed_and_not_remembered() -> None:
    """Nothing is remembered under a mark that is somebody's."""
    sticky = Sticky()
    lent = sticky.nft._tables[TABLE].elements["lent-marks4"]
    for number in range(LENT):
        lent[number.to_bytes(20, "big")] = bytes(4)
    asked = Connection(CLIENT, NODE_IP, TCP, 30080, mark=0x80)
    assert {sticky.backend.trace(asked, draw=n).output for n in range(20)} == {f"{pod}:8080" for pod in PODS}
    assert sticky.backend.packet.connection_mark == 0x80
    assert not sticky.nft.elements(TABLE, maps.AFFINITY["4"])


def test_others_coming_and_going_move_nobody() -> None:
    """Slots are refilled and moved; the client's pod is the same one."""
    sticky = Sticky()
    mine = sticky.asks()
    for pods in (PODS[::-1], [mine, "10.244.0.99"], ["10.244.0.98", mine], PODS):
        sticky.put(*pods)
        assert {sticky.asks() for _ in range(9)} == {mine}


def test_a_client_moves_when_its_pod_leaves_and_stays_where_it_went() -> None:
    """The next connection finds another pod, at all ports; the first one coming back changes nothing."""
    sticky = Sticky()
    first = sticky.asks()
    sticky.put(*(pod for pod in PODS if pod != first))
    second = sticky.asks(port=90)
    assert second != first
    assert {sticky.asks() for _ in range(9)} == {second}
    sticky.put(*PODS)
    assert {sticky.asks() for _ in range(9)} == {second}


@pytest.mark.parametrize("balance", ["weighted", "maglev"])
def test_a_client_leaves_a_pod_that_drains(balance: str) -> None:
    """Weight 0 is for remembered clients too; a pod of several slots is one pod to them."""
    sticky = Sticky(annotations={"kubesvc.dev/balance": balance})
    sticky.put(*PODS, weights=f"{PODS[0]}=4,{PODS[1]}=2")
    mine = sticky.asks()
    assert {sticky.asks(address=VIP) for _ in range(20)} == {mine}
    sticky.put(*PODS, weights=f"{PODS[0]}=9,{mine}=3")
    assert {sticky.asks() for _ in range(20)} == {mine}
    sticky.put(*PODS, weights=f"{mine}=0")
    moved = sticky.asks(address=NODE_IP, port=30080)
    assert moved != mine
    sticky.put(*PODS)
    assert {sticky.asks() for _ in range(20)} == {moved}


def test_the_last_pod_leaving_rejects() -> None:
    """Nobody is sent to where nobody is."""
    sticky = Sticky()
    sticky.asks()
    sticky.put()
    assert sticky.asks() == "reject"


def test_a_session_ends_after_its_timeout_and_connections_renew_it() -> None:
    """An hour since the *last* connection."""
    sticky = Sticky(timeout=3600)
    mine = sticky.asks()
    for _ in range(5):
        sticky.nft.now += 3599
        assert sticky.asks() == mine
    sticky.nft.now += 3600
    assert sticky.asks() != mine


def test_three_hours_unless_said_otherwise() -> None:
    """The API's default."""
    sticky = Sticky(timeout=None)
    mine = sticky.asks()
    sticky.nft.now += 10799
    assert sticky.asks() == mine
    sticky.nft.now += 10800
    assert sticky.asks() != mine


def test_a_restart_of_the_proxy_forgets_nobody() -> None:
    """The kernel remembers the client, and ids are the same in every process."""
    sticky = Sticky()
    mine = sticky.asks()
    sticky.put(*reversed(PODS))
    sticky.restart()
    assert {sticky.asks() for _ in range(9)} == {mine}


def test_policy_local_keeps_a_client_on_a_pod_of_this_node() -> None:
    """From outside the local set, from a pod the cluster set: each keeps one of its own."""
    sticky = Sticky(externalTrafficPolicy="Local")
    here = {pod for pod in PODS if pod.startswith("10.244.0.")}
    for address, port in ((VIP, 80), (NODE_IP, 30080)):
        found = {sticky.asks(address=address, port=port) for _ in range(9)}
        assert len(found) == 1
        assert found <= here
        assert len({sticky.asks("10.244.0.77", address, port) for _ in range(9)}) == 1


def test_with_policy_local_a_client_outside_ends_up_with_one_pod() -> None:
    """A pod elsewhere is not for it at the load balancer's address; the one here is for it at all."""
    sticky = Sticky(externalTrafficPolicy="Local")
    while sticky.asks(CLIENT).startswith("10.244.0."):
        sticky.nft.now += 7200
    here = sticky.asks(CLIENT, VIP)
    assert here.startswith("10.244.0.")
    for _ in range(5):
        assert sticky.asks(CLIENT) == here == sticky.asks(CLIENT, VIP) == sticky.asks(CLIENT, NODE_IP, 30080)


def test_a_new_traffic_policy_moves_clients_that_may_not_stay() -> None:
    """With policy Local a client from outside leaves the pod it had on another node."""
    sticky = Sticky()
    while (found := sticky.asks(CLIENT, VIP)).startswith("10.244.0."):
        sticky.nft.now += 7200
    sticky.become(externalTrafficPolicy="Local")
    moved = {sticky.asks(CLIENT, VIP) for _ in range(9)}
    assert len(moved) == 1
    assert moved.pop().startswith("10.244.0."), found


def test_a_full_memory_serves_newcomers_without_keeping_them() -> None:
    """Who is remembered stays so; the others get any pod; nothing grows."""
    sticky = Sticky()
    mine = sticky.asks()
    affinity = sticky.nft._tables[TABLE].elements["affinity4"]
    for number in range(AFFINITY_SIZE - 1):
        affinity[number.to_bytes(8, "big")] = bytes(4)
    assert {sticky.asks(OTHER) for _ in range(30)} == set(PODS)
    assert {sticky.asks() for _ in range(9)} == {mine}
    assert len(affinity) == AFFINITY_SIZE


def test_a_service_that_loses_affinity_leaves_no_elements() -> None:
    """Ids and their endpoints go with it."""
    sticky = Sticky()
    sticky.asks()
    sticky.become(sessionAffinity="None")
    assert not sticky.nft.elements(TABLE, maps.SLOTS["4"])
    assert len(sticky.nft.elements(TABLE, maps.BACKENDS["4"])) == len(PODS) * 3 * 4  # ports, addresses
    assert len({sticky.asks() for _ in range(20)}) == len(PODS)


@pytest.mark.parametrize(("asked", "kept"), [(0, 0), (1, 1), (61, 90), (10800, 10800), (86399, 86400), (86400, 86400)])
def test_a_timeout_is_never_shortened(asked: int, kept: int) -> None:
    """It is one of few, the next longer one."""
    assert keep_for(asked) == kept
    assert sorted(set(TIMEOUTS)) == list(TIMEOUTS)


def test_an_endpoints_id_depends_on_nothing_but_its_address() -> None:
    """The same beside others, in another order, at another port; and no two of a frontend are alike."""
    pods = [pack(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") + port_data(80) for n in range(5000)]
    ids = endpoint_ids(pods)
    assert len(set(ids.values())) == 5000
    again = endpoint_ids([pod[:4] + port_data(90) for pod in reversed(pods)])
    assert [again[pod[:4] + port_data(90)] for pod in pods] == [ids[pod] for pod in pods]
    assert endpoint_ids(pods[7:8])[pods[7]] == ids[pods[7]]
