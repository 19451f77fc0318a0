"""Real packets through a node's data plane.

client ── 172.29.7.0/24 ── node ══ pod1 10.244.0.1, pod2 10.244.0.2   routed veths
                             └──── peer (another node) ══ pod3 10.244.1.1
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from kubesvc.kernel.nft.connection import Connection
from kubesvc.proxy import namespace
from kubesvc.proxy.backend import Changes, Kind
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.layout import TCP, UDP
from kubesvc.proxy.nftables import NftablesBackend
from support.net import DEADLINE, Lab, Namespace, ask
from support.proxy import NODE_IP, RANGES, changes, frontend

VIP, DNS, EMPTY, SELF, PORT = "10.96.0.10", "10.96.0.11", "10.96.0.12", "10.96.0.13", 30080
ONE, TWO, THREE = "10.244.0.1", "10.244.0.2", "10.244.1.1"
CLIENT_IP, PEER_IP = "172.29.7.99", "172.29.7.12"
PODS = {ONE: "pod1", TWO: "pod2", THREE: "pod3"}


@dataclass
class World:
    node: Namespace
    peer: Namespace
    client: Namespace
    pod1: Namespace
    pod2: Namespace
    pod3: Namespace
    backend: NftablesBackend


@pytest.fixture
def world() -> Iterator[World]:
    with Lab("traffic") as lab:
        net, node, peer, client = (lab.namespace(n) for n in ("net", "node", "peer", "client"))
        net.ip("link", "add", "br0", "type", "bridge")
        net.ip("link", "set", "br0", "up")
        for number, (member, address) in enumerate(((node, NODE_IP), (peer, PEER_IP), (client, CLIENT_IP))):
            lab.link(net, f"p{number}", member, "eth0")
            net.ip("link", "set", f"p{number}", "master", "br0")
            member.ip("addr", "add", f"{address}/24", "dev", "eth0")
        pods = [lab.pod(node, "pod1", ONE), lab.pod(node, "pod2", TWO), lab.pod(peer, "pod3", THREE)]
        node.ip("route", "add", "10.244.1.0/24", "via", PEER_IP)
        peer.ip("route", "add", "10.244.0.0/24", "via", NODE_IP)
        client.ip("route", "add", "10.96.0.0/16", "via", NODE_IP)
        client.ip("route", "add", "172.29.8.0/24", "via", NODE_IP)
        for pod, name in zip(pods, PODS.values(), strict=True):
            lab.serve(pod, 8080, name)
            lab.serve(pod, 8080, name, udp=True)
        config = ProxyConfig("node1", (ip_address(NODE_IP),), RANGES.service_cidrs, RANGES.pod_cidrs)
        node.call(lambda: namespace.prepare(config))
        nft = node.call(Connection)
        assert isinstance(nft, Connection)
        backend = NftablesBackend(nft, RANGES)
        backend.resync(
            changes(
                frontend(VIP, 80, ONE, TWO, THREE),
                frontend(DNS, 53, ONE, TWO, THREE, protocol=UDP, owner="dns"),
                frontend(EMPTY, 80, owner="empty"),
                frontend(EMPTY, 53, protocol=UDP, owner="empty"),
                frontend(SELF, 80, ONE, owner="self"),
                frontend(NODE_IP, PORT, ONE, TWO, THREE, kind=Kind.NODE_PORT),
                frontend(NODE_IP, PORT, ONE, TWO, THREE, kind=Kind.NODE_PORT, protocol=UDP),
                frontend("172.29.8.1", 80, ONE, TWO, THREE, kind=Kind.LOAD_BALANCER),
                local=(ONE, TWO),
            )
        )
        yield World(node, peer, client, *pods, backend)
        backend.close()


def test_every_kind_of_source_gets_an_answer(world: World) -> None:
    """Cluster IP from a pod, from the node, from outside; node port and load balancer address; TCP and UDP; and each
    with the source address the rules promise."""
    for where, address, port, udp, seen in (
        (world.pod1, VIP, 80, False, {ONE, "172.29.7.11"}),  # itself, by hairpin, or another
        (world.pod3, NODE_IP, PORT, False, {NODE_IP}),
        (world.client, VIP, 80, False, {NODE_IP}),
        (world.client, NODE_IP, PORT, False, {NODE_IP}),
        (world.client, NODE_IP, PORT, True, {NODE_IP}),
        (world.client, "172.29.8.1", 80, False, {NODE_IP}),
        (world.node, VIP, 80, False, {NODE_IP}),
        (world.node, NODE_IP, PORT, False, {NODE_IP}),
        (world.node, DNS, 53, True, {NODE_IP}),
    ):
        answers = {ask(where, address, port, udp=udp) for _ in range(12)}
        assert {name for name, _ in answers} <= set(PODS.values())
        assert {source for _, source in answers} <= seen, (where.name, address, port)


def test_a_pod_keeps_its_address_on_the_way_to_another(world: World) -> None:
    """Pod to cluster IP is not masqueraded, to this node's pods or another's."""
    seen = {ask(world.pod1, DNS, 53, udp=True) for _ in range(60)}  # misses one of three once in 10^10 runs
    assert {(name, source) for name, source in seen if name != "pod1"} == {("pod2", ONE), ("pod3", ONE)}


def test_connections_spread_evenly(world: World) -> None:
    """600 connections over three endpoints: each has its third, give or take seven deviations (10^-10 by chance)."""
    counts = Counter(ask(world.client, NODE_IP, PORT)[0] for _ in range(600))
    assert set(counts) == set(PODS.values())
    assert all(abs(count - 200) < 7 * (600 * 2 / 9) ** 0.5 for count in counts.values()), counts


def test_a_pod_reaches_itself_through_its_service(world: World) -> None:
    """The only endpoint calls its own Service: it is masqueraded, or the reply would never leave the pod."""
    assert ask(world.pod1, SELF, 80) == ("pod1", NODE_IP)


@pytest.mark.parametrize("source", ["pod1", "node", "client"])
def test_a_service_without_endpoints_refuses_at_once(world: World, source: str) -> None:
    """Connection refused, not a time-out, however often: the kernel's limit on ICMP errors isn't met."""
    where: Namespace = getattr(world, source)
    for _ in range(50):
        with pytest.raises(ConnectionRefusedError):
            ask(where, EMPTY, 80)
    # On the node itself send() already fails, with EPERM, as with any packet a filter in output refuses.
    with pytest.raises(PermissionError if source == "node" else ConnectionRefusedError):
        ask(where, EMPTY, 53, udp=True)


def test_a_refused_neighbour_is_not_redirected(world: World) -> None:
    """A load balancer's address in the clients' own network: many refusals, and not one redirect."""
    vip = frontend("172.29.7.200", 80, kind=Kind.LOAD_BALANCER)
    world.backend.apply(Changes({vip.key: vip}), "1")
    world.client.ip("route", "add", "172.29.7.200/32", "via", NODE_IP)
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            ask(world.client, "172.29.7.200", 80)
    counted = world.node.run("nstat", "-asz", "IcmpOutRedirects").split()
    assert float(counted[counted.index("IcmpOutRedirects") + 1]) == 0


def test_an_undefined_port_is_refused_and_an_unallocated_address_is_silent(world: World) -> None:
    """A port nobody defined: refused. An address nobody has: nothing comes back."""
    with pytest.raises(ConnectionRefusedError):
        ask(world.pod1, VIP, 81)
    with pytest.raises(TimeoutError):
        ask(world.pod1, "10.96.200.200", 80, timeout=0.3)


def test_the_nodes_own_traffic_is_left_alone(world: World) -> None:
    """Pod to pod, and a port of the node itself, go where they went before."""
    assert ask(world.pod1, THREE, 8080) == ("pod3", ONE)
    with pytest.raises(ConnectionRefusedError):
        ask(world.client, NODE_IP, 9)


def test_endpoints_change_under_load_without_a_failed_connection(world: World) -> None:
    """While endpoints are removed, replaced and added a thousand times, every new connection is answered."""
    failures: list[str] = []
    answered: list[str] = []
    stop = threading.Event()

    def load(where: Namespace, address: str, port: int) -> None:
        while not stop.is_set():
            try:
                answered.append(ask(where, address, port)[0])
            except OSError as error:
                failures.append(f"{address}: {error!r}")

    threads = [
        threading.Thread(target=load, args=arguments)
        for arguments in ((world.pod1, VIP, 80), (world.client, NODE_IP, PORT), (world.node, VIP, 80))
    ]
    for thread in threads:
        thread.start()
    sets = ((ONE, TWO, THREE), (ONE, TWO), (THREE,), (TWO, THREE), (THREE, ONE, TWO), (ONE,))
    try:
        for turn in itertools.count():
            if turn >= 1000 and (failures or len(answered) > 100):
                break
            endpoints = sets[turn % len(sets)]
            both = (frontend(VIP, 80, *endpoints), frontend(NODE_IP, PORT, *endpoints, kind=Kind.NODE_PORT))
            world.backend.apply(Changes({f.key: f for f in both}), str(turn))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_no_connection_reaches_an_endpoint_once_its_removal_is_acknowledged(world: World) -> None:
    """From the acknowledgement on, new connections go elsewhere; an established one lives on."""
    with world.pod1.socket() as long_lived, world.pod2.socket() as listening:
        long_lived.settimeout(DEADLINE)
        world.backend.apply(Changes({(only := frontend(VIP, 80, TWO)).key: only}), "1")
        listening.bind(("0.0.0.0", 9090))
        listening.listen()
        held = frontend(VIP, 90, TWO, target=9090, owner="held")
        world.backend.apply(Changes({held.key: held}), "2")
        long_lived.connect((VIP, 90))
        accepted, _ = listening.accept()
        moved, emptied = frontend(VIP, 80, ONE, THREE), frontend(VIP, 90, owner="held")
        with accepted:
            world.backend.apply(Changes({moved.key: moved, emptied.key: emptied}), "3")
            assert {ask(world.pod1, VIP, 80)[0] for _ in range(60)} == {"pod1", "pod3"}
            long_lived.sendall(b"still here")
            assert accepted.recv(64) == b"still here"


def test_a_restart_has_no_blip(world: World) -> None:
    """While backends come and go, each adopting the table, no connection fails."""
    failures: list[BaseException] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                ask(world.client, NODE_IP, PORT)
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    everything = changes(
        frontend(VIP, 80, ONE, TWO, THREE), frontend(NODE_IP, PORT, THREE, TWO, kind=Kind.NODE_PORT), local=(ONE, TWO)
    )
    try:
        for _ in range(50):
            nft = world.node.call(Connection)
            assert isinstance(nft, Connection)
            restarted = NftablesBackend(nft, RANGES)
            restarted.resync(everything)
            restarted.close()
    finally:
        stop.set()
        thread.join()
    assert not failures


def test_the_namespace_is_prepared(world: World) -> None:
    """Forwarding, loose reverse paths, liberal tracking and a route to the Services, from the node's address."""
    assert f"10.96.0.0/16 dev eth0 proto 155 scope link src {NODE_IP}" in world.node.ip("route")
    for name, value in (
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.rp_filter", "2"),
        ("net.netfilter.nf_conntrack_tcp_be_liberal", "1"),
    ):
        assert world.node.run("sysctl", "-n", name).strip() == value


@pytest.mark.parametrize(
    ("liberal", "lives"), [pytest.param("1", True, id="as prepared"), pytest.param("0", False, id="without it")]
)
def test_a_packet_out_of_window_ends_no_connection(world: World, liberal: str, lives: bool) -> None:
    """A stray segment of the server's would be INVALID, pass untranslated, and be answered with a reset by a client
    that knows no such peer; the server would take that for its own client's."""
    world.node.sysctl("netfilter/nf_conntrack_tcp_be_liberal", liberal)
    with (
        world.pod1.socket() as listening,
        world.pod2.socket() as client,
        world.pod1.packets("eth0") as wire,
    ):
        listening.bind(("", 9000))
        listening.listen()
        world.backend.resync(changes(frontend(VIP, 80, ONE, target=9000)))
        client.settimeout(DEADLINE)
        client.connect((VIP, 80))
        server, _ = listening.accept()
        with server:
            server.settimeout(DEADLINE)
            server.sendall(b"hello")
            assert client.recv(16) == b"hello"
            _inject(world.pod1, _last_segment(wire, 9000))
            if lives:
                client.sendall(b"still there?")
                assert server.recv(16) == b"still there?"
            else:
                with pytest.raises(ConnectionResetError):
                    server.recv(16)


_SEGMENT = struct.Struct(">HHIIBBHHH")  # ports, sequence, acknowledged, offset, flags, window, checksum, urgent
_DATA = 0x18  # PSH, ACK


def _last_segment(wire: socket.socket, port: int) -> tuple[str, tuple[int, ...]]:
    """Where the last data sent from `port` went, and its TCP header."""
    found = None
    while found is None or found[1][5] != _DATA:
        packet = wire.recv(2048)
        header = packet[0] % 16 * 4
        if packet[9] == TCP and (segment := _SEGMENT.unpack_from(packet, header))[0] == port:
            found = socket.inet_ntoa(packet[16:20]), segment
    return found


def _inject(pod: Namespace, last: tuple[str, tuple[int, ...]]) -> None:
    """The same once more, a gigabyte further on in the stream."""
    to, (source, target, sequence, acknowledged, *_) = last
    beyond = (sequence + (1 << 30)) % (1 << 32)
    segment = _SEGMENT.pack(source, target, beyond, acknowledged, 5 << 4, _DATA, 512, 0, 0) + b"?"
    pseudo = socket.inet_aton(ONE) + socket.inet_aton(to) + struct.pack(">BBH", 0, TCP, len(segment))
    words = struct.unpack(f">{(len(pseudo) + len(segment) + 1) // 2}H", pseudo + segment + b"\0" * (len(segment) % 2))
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    segment = segment[:16] + struct.pack(">H", ~total & 0xFFFF) + segment[18:]
    with pod.socket_of(socket.IPPROTO_TCP, socket.AF_INET) as raw:
        raw.sendto(segment, (to, 0))
