"""BGP with a real router: FRR learns addresses, spreads connections over the nodes, and is told when one must not."""

from __future__ import annotations

import http.server
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubesvc.api.meta import JSON
from kubesvc.api.registry import BGP_ADVERTISEMENT, BGP_PEER, NODE, SECRET
from kubesvc.kernel import netns
from support.box import eventually
from support.net import Namespace, ask
from support.segment import Frr, Network, frr, network

VIP, VIP6 = "10.7.0.1", "fd00:7::1"
ROUTER = """
hostname router
bfd
 profile fast
  receive-interval 100
  transmit-interval 100
  detect-multiplier 20
 exit
exit
router bgp 64513
 bgp router-id 10.9.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 bgp graceful-restart
 timers bgp 30 90
"""
NODE4 = """
 neighbor {address} remote-as {asn}
 neighbor {address} password hush
 neighbor {address} bfd profile fast
 neighbor {address} passive
 address-family ipv{version} unicast
  neighbor {address} activate
  maximum-paths 8
 exit-address-family
"""


WATCHED = {"receiveInterval": 100, "transmitInterval": 100, "detectMultiplier": 20}
"""Two seconds: a machine that is busy with other things for less takes no session down."""


def configuration(*addresses: str, asn: int = 64512) -> str:
    sessions = (NODE4.format(address=a, asn=asn, version=6 if ":" in a else 4) for a in addresses)
    return ROUTER + "".join(sessions) + "exit\n"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with network("bgp", tmp_path) as made:
        yield made


@pytest.fixture
def router(net: Network) -> Iterator[Frr]:
    with frr(net.router, configuration("10.9.0.11", "10.9.0.12", "fd00:9::11", "fd00:9::12")) as running:
        yield running


def peer(net: Network, **more: object) -> None:
    spec = {"myASN": 64512, "peerASN": 64513, "password": "hush", "bfd": WATCHED, "connectTime": "1s", **more}
    net.create(BGP_PEER, "router", spec | {"peerAddress": "10.9.0.1"})
    net.create(BGP_PEER, "router6", spec | {"peerAddress": "fd00:9::1"})


def routes(router: Frr, address: str) -> set[str]:
    """The next hops of an address in the router's BGP table."""
    version = "ipv6" if ":" in address else "ipv4"
    found = json.loads(router.show(f"show bgp {version} unicast {address} json"))
    return {path["peer"]["peerId"] for path in found.get("paths", ())}


def until_routed(router: Frr, address: str, *peers: str) -> None:
    eventually(lambda: routes(router, address) == set(peers), 60, f"{address} by {peers}")


def until_watched(router: Frr, address: str, *peers: str) -> None:
    """Until BFD is up, too. FRR makes its BFD session anew when the first BGP session is there, which ends that one:
    what is seen as established before may be gone in the next moment."""

    def watched() -> set[str]:
        return {found["peer"] for found in json.loads(router.show("show bfd peers json")) if found["status"] == "up"}

    eventually(lambda: routes(router, address) == set(peers) <= watched(), 60, f"{address} by {peers}")


def states(net: Network) -> dict[str, str]:
    shown = net.get(BGP_PEER, "router").get("status", {}).get("sessions", {})
    return {node: session["state"] for node, session in shown.items()}


def reached(net: Network, address: str, times: int = 40) -> set[str]:
    """Who answers; no further questions once nobody does."""
    found: set[str] = set()
    for _ in range(times):
        found.add(net.answers(net.client, address))
        if "" in found:
            break
    return found


def test_every_node_announces_and_connections_are_spread(net: Network, router: Frr) -> None:
    """Both families, MD5, communities; a node that ends in order withdraws at once, one that vanishes within BFD's
    time; a Service of policy Local only where its endpoints are."""
    peer(net)
    net.create(BGP_ADVERTISEMENT, "all", {"ipAddressPools": ["pool"], "communities": ["64512:100"]})
    announcers = {name: net.announce(name) for name in net.nodes}
    net.service("web", VIP, VIP6)
    until_routed(router, VIP, "10.9.0.11", "10.9.0.12")
    until_routed(router, VIP6, "fd00:9::11", "fd00:9::12")
    until_watched(router, VIP, "10.9.0.11", "10.9.0.12")
    assert "64512:100" in router.show(f"show bgp ipv4 unicast {VIP}")
    eventually(lambda: reached(net, VIP) == {"node1", "node2"}, 60, "both nodes are used")
    eventually(lambda: reached(net, VIP6) == {"node1", "node2"}, 60, "both nodes are used over IPv6")
    eventually(lambda: states(net) == {"node1": "Established", "node2": "Established"}, 60, "both sessions are shown")
    eventually(
        lambda: net.get(BGP_PEER, "router")["status"]["sessions"]["node1"]["advertised"] == 1, 60, "it is counted"
    )

    announcers["node1"].end()
    until_routed(router, VIP, "10.9.0.12")
    eventually(lambda: reached(net, VIP) == {"node2"}, 60, "the router's kernel knows, too")

    net.announce("node1")
    until_routed(router, VIP, "10.9.0.11", "10.9.0.12")
    net.nodes["node2"].ip("link", "set", "eth0", "down")
    eventually(lambda: routes(router, VIP) == {"10.9.0.11"}, 60, "BFD noticed, long before the hold time")
    eventually(lambda: reached(net, VIP) == {"node1"}, 60, "the router's kernel knows, too")
    net.nodes["node2"].ip("link", "set", "eth0", "up")
    net.nodes["node2"].ip("route", "add", "default", "via", "10.9.0.1")
    until_routed(router, VIP, "10.9.0.11", "10.9.0.12")

    net.service("local", "10.7.0.2", policy="Local")
    net.endpoint_on("local", "node1")
    until_routed(router, "10.7.0.2", "10.9.0.11")
    net.endpoint_on("local")
    until_routed(router, "10.7.0.2")
    net.ready("node1", "False")
    until_routed(router, VIP, "10.9.0.12")


def test_an_internal_peer_hears_preferences_and_is_watched(net: Network) -> None:
    """Of one AS and on one segment: BFD goes over one hop."""
    config = configuration("10.9.0.11").replace("router bgp 64513", "router bgp 64512")
    with frr(net.router, config) as router:
        spec = {"myASN": 64512, "peerASN": 64512, "peerAddress": "10.9.0.1", "password": "hush", "bfd": WATCHED}
        net.create(BGP_PEER, "router", spec)
        net.create(BGP_ADVERTISEMENT, "all", {"localPref": 300})
        net.announce("node1")
        net.service("web", VIP)
        until_watched(router, VIP, "10.9.0.11")
        assert '"locPrf":300' in router.show(f"show bgp ipv4 unicast {VIP} json").replace(" ", "")
        gone_by_bfd(net, router)


def test_a_peer_some_hops_away_is_watched(net: Network) -> None:
    """A router's loopback, by eBGP over several hops: BFD needs the address that it comes from."""
    net.router.ip("addr", "add", "10.9.9.9/32", "dev", "lo")
    far = " neighbor 10.9.0.11 ebgp-multihop 255\n neighbor 10.9.0.11 update-source 10.9.9.9\n"
    config = configuration("10.9.0.11").replace(" neighbor 10.9.0.11 bfd", f"{far} neighbor 10.9.0.11 bfd")
    with frr(net.router, config) as router:
        spec = {"myASN": 64512, "peerASN": 64513, "peerAddress": "10.9.9.9", "password": "hush", "bfd": WATCHED}
        net.create(BGP_PEER, "router", spec | {"ebgpMultiHop": True})
        net.create(BGP_ADVERTISEMENT, "all", {})
        net.announce("node1")
        net.service("web", VIP)
        until_routed(router, VIP, "10.9.0.11")
        gone_by_bfd(net, router)


def test_a_router_sees_the_session_that_its_peer_describes(net: Network) -> None:
    """Its port, the address that the node speaks from, the router's id, and the times of the session."""
    net.nodes["node1"].ip("addr", "add", "10.9.0.21/24", "dev", "eth0")
    with frr(net.router, configuration("10.9.0.21"), port=1179) as router:
        spec = {"myASN": 64512, "peerASN": 64513, "peerAddress": "10.9.0.1", "peerPort": 1179, "password": "hush"}
        more = {"sourceAddress": "10.9.0.21", "routerID": "192.0.2.77", "holdTime": "30s", "keepaliveTime": "1s"}
        net.create(BGP_PEER, "router", spec | more)
        net.create(BGP_ADVERTISEMENT, "all", {})
        net.announce("node1")
        net.service("web", VIP)
        until_routed(router, VIP, "10.9.0.21")

        def neighbour() -> JSON:
            found: JSON = json.loads(router.show("show bgp neighbors 10.9.0.21 json"))["10.9.0.21"]
            return found

        found = neighbour()
        assert (found["remoteRouterId"], found["bgpTimerHoldTimeMsecs"]) == ("192.0.2.77", 30_000)
        before = found["messageStats"]["keepalivesRecv"]
        eventually(
            lambda: neighbour()["messageStats"]["keepalivesRecv"] >= before + 10, 60, "more than the hold time asks for"
        )


def gone_by_bfd(net: Network, router: Frr) -> None:
    """The router forgets the node's routes when its link goes, long before the hold time."""
    until_watched(router, VIP, "10.9.0.11")
    net.nodes["node1"].ip("link", "set", "eth0", "down")
    try:
        until_routed(router, VIP)
    finally:
        net.nodes["node1"].ip("link", "set", "eth0", "up")


def test_a_password_that_cannot_be_read_concerns_its_peer_alone(net: Network, router: Frr) -> None:
    """Until its Secret is there; and a peer for some nodes is no other node's."""
    peer(net, connectTime="1s", nodeSelectors=[{"matchLabels": {"rack": "a"}}])
    net.patch(BGP_PEER, "router6", {"spec": {"password": None, "passwordSecret": {"name": "bgp-password"}}})
    net.patch(NODE, "node1", {"metadata": {"labels": {"rack": "a"}}})
    net.create(BGP_ADVERTISEMENT, "all", {})
    net.announce("node1")
    net.announce("node2")
    net.service("web", VIP, VIP6)
    until_routed(router, VIP, "10.9.0.11")

    def shown(name: str) -> tuple[str, bool]:
        found = net.get(BGP_PEER, name).get("status", {}).get("sessions", {}).get("node1", {})
        return found.get("state", ""), "kube-system/bgp-password can't be read" in (found.get("message") or "")

    eventually(lambda: shown("router") == ("Established", False), 60, "one speaks")
    eventually(lambda: shown("router6") == ("Down", True), 60, "the other says why it doesn't")
    meta = {"name": "bgp-password", "namespace": "kube-system"}
    secret = {"metadata": meta, "type": "kubernetes.io/basic-auth", "stringData": {"password": "hush"}}
    net.server.run(net.server.session().create(SECRET, secret))
    eventually(lambda: shown("router6") == ("Established", False), 60, "it speaks, too")
    until_routed(router, VIP6, "fd00:9::11")
    eventually(lambda: states(net) == {"node1": "Established"}, 60, "node1 alone, and it speaks")


def test_what_bird_refuses_is_said_in_its_words(net: Network, router: Frr) -> None:
    """As what an API server of others lets through; sessions that are there go on, and show it."""
    peer(net)
    net.create(BGP_ADVERTISEMENT, "all", {})
    net.announce("node1")
    net.service("web", VIP)
    until_watched(router, VIP, "10.9.0.11")
    eventually(lambda: states(net) == {"node1": "Established"}, 60, "it speaks")
    net.patch(BGP_PEER, "router6", {"spec": {"peerAddress": "fe80::1"}})  # of which link?

    def shown() -> JSON:
        found: JSON = net.get(BGP_PEER, "router")["status"]["sessions"]["node1"]
        return found

    eventually(lambda: "BIRD refuses its configuration" in shown().get("message", ""), 60, "it is said")
    assert shown()["state"] == "Established"
    assert routes(router, VIP) == {"10.9.0.11"}


class Healthz:
    """What a proxy's /healthz says, on port 10256 of a node."""

    def __init__(self, node: Namespace) -> None:
        self.status = 200
        outer = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        with netns.entered(node.path):
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 10256), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_failing_health_withdraws_and_traffic_goes_elsewhere(net: Network, router: Frr) -> None:
    """The session stays up: only the routes go, of both families, and come back with the health."""
    peer(net)
    net.create(BGP_ADVERTISEMENT, "all", {})
    health = Healthz(net.nodes["node1"])
    try:
        net.announce("node1", "--health-url", "http://127.0.0.1:10256/healthz")
        net.announce("node2")
        net.service("web", VIP, VIP6)
        until_routed(router, VIP, "10.9.0.11", "10.9.0.12")
        until_routed(router, VIP6, "fd00:9::11", "fd00:9::12")
        until_watched(router, VIP, "10.9.0.11", "10.9.0.12")
        health.status = 503
        until_routed(router, VIP, "10.9.0.12")
        until_routed(router, VIP6, "fd00:9::12")
        eventually(lambda: reached(net, VIP) == {"node2"}, 60, "the router's kernel knows, too")
        states = json.loads(router.show("show bgp ipv4 unicast summary json"))["peers"]
        assert {address: found["state"] for address, found in states.items()} == {
            "10.9.0.11": "Established",
            "10.9.0.12": "Established",
        }
        health.status = 200
        until_routed(router, VIP, "10.9.0.11", "10.9.0.12")
        until_routed(router, VIP6, "fd00:9::11", "fd00:9::12")
        eventually(lambda: reached(net, VIP) == {"node1", "node2"}, 60, "both serve again")
        health.close()  # nobody answers at all
        until_routed(router, VIP, "10.9.0.12")
    finally:
        health.close()


def test_a_graceful_restart_keeps_the_routes(net: Network, router: Frr) -> None:
    """Forwarding goes on while the announcer is replaced."""
    peer(net, enableGracefulRestart=True, bfd=None)
    first = net.announce("node1")
    net.create(BGP_ADVERTISEMENT, "all", {})
    net.service("web", VIP)
    until_routed(router, VIP, "10.9.0.11")
    eventually(lambda: net.answers(net.client, VIP) == "node1", 60, "answered")
    first.end()
    eventually(lambda: "stale" in router.show(f"show bgp ipv4 unicast {VIP}"), 60, "kept as stale")
    assert ask(net.client, VIP, 80)[0] == "node1"
    net.announce("node1")
    eventually(lambda: "stale" not in router.show(f"show bgp ipv4 unicast {VIP}"), 60, "refreshed")
    assert routes(router, VIP) == {"10.9.0.11"}


def test_without_bird_it_is_said_how_to_get_it(net: Network) -> None:
    """In the log, in an event's words, and in the peer's status."""
    announcer = net.announce("node1", "--bird", "nosuchbird")
    peer(net)

    def state() -> str:
        sessions = net.get(BGP_PEER, "router").get("status", {}).get("sessions", {})
        return str(sessions.get("node1", {}).get("message", ""))

    eventually(lambda: "apt install bird2" in state(), 60, "the peer's status says so")
    announcer.end(signal.SIGTERM)
    said = announcer.log.read_text()
    assert "BIRD 2 isn't installed on node node1" in said
    assert "Traceback" not in said
