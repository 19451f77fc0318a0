"""One world and one table of packet flows, for the tracer and for real packets.

                           ┌ node ─── pod1, pod2     this node, which the table is about
    client ── node network ┤ peer ─── pod3           another node
                           └ third ── pod4           and one more

`FLOWS` says where a connection from each kind of source ends: at which pods, whether masqueraded, or how it is refused.
Every row holds in both families.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from kubesvc.kernel.nft.jenkins import jhash, scale
from kubesvc.proxy.backend import Changes, Ranges
from kubesvc.proxy.balance import table
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import HASH_SEED, SCTP, TCP, UDP, pack, port_data
from kubesvc.proxy.localhost import FORWARDER_PORT
from support.proxy import NODE, endpoint, service, slice_of

RANGES = Ranges(
    (ip_network("10.96.0.0/16"), ip_network("fd00:96::/108")),
    (ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64")),  # this node's
    localhost=True,
)
SLOTS = 251
"""Of Maglev's tables. For each element of a commit the kernel holds 8 KB while anybody listens to nftables, in whatever
namespace: with the product's own size these would be 18 GB."""
CLUSTER_CIDRS = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))
# family -> name -> address
HOSTS = {
    "4": {"node": "172.29.7.11", "peer": "172.29.7.12", "third": "172.29.7.13", "client": "172.29.7.99"},
    "6": {"node": "fd00:29::11", "peer": "fd00:29::12", "third": "fd00:29::13", "client": "fd00:29::99"},
}
LOCALHOST = {"4": "127.0.0.1", "6": "::1"}
PODS = {
    "4": {"pod1": "10.244.0.1", "pod2": "10.244.0.2", "pod3": "10.244.1.1", "pod4": "10.244.2.1"},
    "6": {"pod1": "fd00:10:244::1", "pod2": "fd00:10:244::2", "pod3": "fd00:10:244:1::1", "pod4": "fd00:10:244:2::1"},
}
NETWORKS = {
    "4": ("172.29.8.0/24", "203.0.113.0/24", "10.96.0.0/16"),
    "6": ("fd00:29:8::/64", "2001:db8:113::/64", "fd00:96::/108"),
}
_PREFIX = {
    "4": {"cluster": "10.96.0.", "lb": "172.29.8.", "external": "203.0.113."},
    "6": {"cluster": "fd00:96::", "lb": "fd00:29:8::", "external": "2001:db8:113::"},
}
LOAD_BALANCER_RANGES = [
    (pack("172.29.8.0"), pack("172.29.8.255")),
    (pack("fd00:29:8::"), pack("fd00:29:8::ffff")),
]


@dataclass(frozen=True)
class Shape:
    """A Service in few words: its number is the end of its addresses; node ports are 30000 and 31000 plus it."""

    number: int
    endpoints: dict[str, str]  # pod -> state
    spec: dict[str, Any]
    hints: dict[str, str] | None = None  # pod -> zone
    weights: dict[str, int] | None = None  # pod -> weight


_LOCAL = {"externalTrafficPolicy": "Local"}
_INSIDE = {"internalTrafficPolicy": "Local"}
_RANGES = "loadBalancerSourceRanges"
_ALL = {"pod1": "ready", "pod2": "ready", "pod3": "ready"}
_WEIGHTED = {"annotations": {"kubesvc.dev/balance": "weighted"}}
_MAGLEV = {"annotations": {"kubesvc.dev/balance": "maglev"}}
_BY_CLIENT = {"annotations": {"kubesvc.dev/balance": "maglev", "kubesvc.dev/balance-key": "client"}}

SERVICES = {
    "web": Shape(11, {"pod1": "ready", "pod2": "ready", "pod3": "ready"}, {}),
    "local": Shape(12, {"pod1": "ready", "pod3": "ready"}, _LOCAL),
    "far": Shape(13, {"pod3": "ready"}, _LOCAL),
    "empty": Shape(14, {}, {}),
    "empty-local": Shape(15, {}, _LOCAL),
    "inner": Shape(16, {"pod1": "ready", "pod3": "ready"}, _INSIDE),
    "inner-far": Shape(17, {"pod3": "ready"}, _INSIDE),
    "self": Shape(18, {"pod1": "ready"}, {}),
    "self-local": Shape(19, {"pod1": "ready"}, _LOCAL),
    "draining": Shape(20, {"pod1": "dead", "pod2": "draining", "pod3": "starting"}, {}),
    "drained-here": Shape(21, {"pod1": "draining", "pod3": "ready"}, _LOCAL | _INSIDE),
    "hinted": Shape(22, {"pod1": "ready", "pod3": "ready"}, _LOCAL, {"pod1": "a", "pod3": "b"}),
    "for-client": Shape(23, {"pod3": "ready"}, {_RANGES: [" 172.29.7.99/32 ", "fd00:29::99/128", "192.0.2.0/24"]}),
    "for-others": Shape(24, {"pod3": "ready"}, {_RANGES: ["192.0.2.0/24", "198.51.100.0/24", "2001:db8:1::/48"]}),
    "for-all": Shape(25, {"pod3": "ready"}, {_RANGES: ["192.0.2.0/24", "0.0.0.0/0", "::/0"]}),
    "for-node": Shape(26, {"pod3": "ready"}, {_RANGES: ["172.29.7.11/32", "fd00:29::11/128"]}),
    "for-nobody-yet": Shape(27, {}, {_RANGES: ["192.0.2.0/24", "2001:db8:1::/48"]}),
    "other-proxy": Shape(28, {"pod1": "ready"}, {"labels": {"service.kubernetes.io/service-proxy-name": ""}}),
    "weighted": Shape(40, _ALL, _WEIGHTED, weights={"pod1": 3, "pod3": 0}),
    "all-drain": Shape(41, _ALL, _WEIGHTED, weights={"pod1": 0, "pod2": 0, "pod3": 0}),
    "unasked": Shape(42, _ALL, {}, weights={"pod1": 0, "pod2": 0}),
    "maglev": Shape(43, _ALL, _MAGLEV, weights={"pod3": 0}),
    "by-client": Shape(44, _ALL, _BY_CLIENT),
    "by-client-local": Shape(45, _ALL, _BY_CLIENT | _LOCAL),
    "sticky-maglev": Shape(46, _ALL, _MAGLEV | {"sessionAffinity": "ClientIP"}),
}
SERVICES |= {
    "away": Shape(30, {"pod4": "ready"}, _LOCAL),
    "spread": Shape(31, {"pod1": "ready", "pod4": "ready"}, _LOCAL),
}
PROXY_MODE = 29  # an address the load balancer proxies itself


def address(family: str, name: str, kind: str) -> str:
    """kind: cluster, lb, external, node or localhost."""
    if kind == "localhost":
        return LOCALHOST[family]
    return HOSTS[family]["node"] if kind == "node" else f"{_PREFIX[family][kind]}{SERVICES[name].number}"


def place(family: str, destination: str) -> tuple[str, int, int]:
    """Address, protocol and port of "web lb", "web node udp", "web lb :81" or an address in words of its own."""
    name, kind, *rest = destination.split()
    protocol = {"udp": UDP, "sctp": SCTP}.get(rest[0] if rest else "", TCP)
    port = {TCP: 80, UDP: 53, SCTP: 80}[protocol]
    if kind in ("node", "localhost"):
        port = SERVICES[name].number + (30000 if protocol == TCP else 31000)
    if rest and rest[-1].startswith(":"):
        port = int(rest[-1][1:])
    if name == "nobody":
        return _PREFIX[family][kind] + "99", protocol, port
    if name == "proxied":
        return f"{_PREFIX[family][kind]}{PROXY_MODE}", protocol, port
    return address(family, name, kind), protocol, port


def world() -> Frontends:
    """The decisions of the node in the middle."""
    frontends = Frontends(
        Locality(NODE, "a"),
        [*(pack(HOSTS[f]["node"]) for f in "46"), pack(LOCALHOST["4"])],
        load_balancer_ranges=LOAD_BALANCER_RANGES,
        forwarder=pack(LOCALHOST["6"]) + port_data(FORWARDER_PORT),
        slot_table=SLOTS,
    )
    for name, shape in SERVICES.items():
        ports = [
            {"name": "http", "port": 80, "nodePort": 30000 + shape.number},
            {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 31000 + shape.number},
            {"name": "sctp", "port": 80, "protocol": "SCTP"},
        ]
        ingress: list[Any] = [address(f, name, "lb") for f in "46"]
        if name == "web":
            ingress += [{"ip": f"{_PREFIX[f]['lb']}{PROXY_MODE}", "ipMode": "Proxy"} for f in "46"]
        made = service(
            name,
            address("4", name, "cluster"),
            ports=ports,
            clusterIPs=[address(f, name, "cluster") for f in "46"],
            type="LoadBalancer",
            externalIPs=[address(f, name, "external") for f in "46"],
            status_ips=ingress,
            **shape.spec,
        )
        frontends.set_service(made.key, made)
        for family in "46":
            frontends.set_slice(None, _slice(name, shape, family))
    return frontends


def everything() -> Changes:
    frontends = world()
    frontends.take()
    return frontends.everything()


def _slice(name: str, shape: Shape, family: str) -> Any:
    endpoints = []
    for pod, state in shape.endpoints.items():
        more = {"hints": {"forZones": [{"name": shape.hints[pod]}]}} if shape.hints else {}
        node = {"pod3": "node2", "pod4": "node3"}.get(pod, NODE)
        endpoints.append(endpoint(PODS[family][pod], node=node, state=state, **more))
    ports = [
        {"name": "http", "port": 8080, "protocol": "TCP"},
        {"name": "dns", "port": 8080, "protocol": "UDP"},
        {"name": "sctp", "port": 8080, "protocol": "SCTP"},
    ]
    weights = ",".join(f"{PODS[family][pod]}={weight}" for pod, weight in (shape.weights or {}).items())
    more = {"owner": name, "name": f"{name}-{family}", "ports": ports, "weights": weights}
    return slice_of(*endpoints, family=f"IPv{family}", **more)


def pods_of(flow: Flow, family: str) -> set[str]:
    """The pods that a connection may end at; with a hash of the client the one that the table has for it."""
    if flow.ends != "hashed":
        return set(flow.ends.split())
    name, kind, *_ = flow.destination.split()
    shape = SERVICES[name]
    outside = flow.source == "client" and kind != "cluster" and "externalTrafficPolicy" in shape.spec
    pods = {pack(PODS[family][pod]): pod for pod in shape.endpoints if not (outside and pod == "pod3")}
    slots = table(tuple((pod + port_data(8080), 1) for pod in sorted(pods)), SLOTS)
    source = pack((HOSTS[family] | PODS[family])[flow.source])
    return {pods[slots[scale(jhash(source, HASH_SEED), SLOTS)][:-4]]}


@dataclass(frozen=True)
class Flow:
    """source: pod1, pod3 (another node's), node or client. ends: pods, or reject, drop, untouched; hashed: the pod of
    the client's slot."""

    source: str
    destination: str
    ends: str
    masqueraded: bool = False
    families: str = "46"

    def __str__(self) -> str:
        return f"{self.source} to {self.destination}"


KEPT, MASQUERADED = False, True

FLOWS: list[Flow] = [
    # a pod
    Flow("pod2", "self cluster", "pod1", KEPT),
    Flow("pod1", "self cluster", "pod1", MASQUERADED),  # hairpin
    Flow("pod1", "self-local lb", "pod1", MASQUERADED),
    Flow("pod1", "far lb udp", "pod3", KEPT),
    Flow("pod1", "far external", "pod3", KEPT),
    Flow("pod1", "far node", "pod3", KEPT),
    Flow("pod2", "local lb", "pod1 pod3", KEPT),
    Flow("pod2", "web node", "pod1 pod2 pod3", MASQUERADED),
    Flow("pod2", "web lb udp", "pod1 pod2 pod3", MASQUERADED),
    Flow("pod2", "inner cluster", "pod1", KEPT),
    Flow("pod2", "inner-far cluster", "drop"),
    Flow("pod2", "inner-far lb", "pod3", MASQUERADED),
    Flow("pod1", "draining cluster", "pod2", KEPT),
    Flow("pod2", "drained-here cluster", "pod1", KEPT),
    Flow("pod2", "drained-here lb", "pod3", KEPT),
    Flow("pod2", "hinted cluster", "pod1", KEPT),
    Flow("pod1", "empty cluster", "reject"),
    Flow("pod1", "empty cluster udp", "reject"),
    Flow("pod1", "empty lb", "reject"),
    Flow("pod1", "empty node", "reject"),
    Flow("pod1", "for-client lb", "drop"),
    Flow("pod1", "for-client cluster", "pod3", KEPT),
    Flow("pod1", "web cluster :81", "reject"),
    Flow("pod1", "web lb :81", "reject"),
    Flow("pod1", "nobody cluster", "drop"),
    Flow("pod1", "proxied lb", "untouched"),
    # this node
    Flow("node", "web cluster", "pod1 pod2 pod3", MASQUERADED),
    Flow("node", "web node", "pod1 pod2 pod3", MASQUERADED),
    Flow("node", "far lb", "pod3", MASQUERADED),
    Flow("node", "far node udp", "pod3", MASQUERADED),
    Flow("node", "local external", "pod1 pod3", MASQUERADED),
    Flow("node", "inner-far cluster", "drop"),
    Flow("node", "inner cluster udp", "pod1", MASQUERADED),
    Flow("node", "empty cluster", "reject"),
    Flow("node", "empty node", "reject"),
    Flow("node", "empty node udp", "reject"),
    Flow("node", "for-node lb", "pod3", MASQUERADED),
    Flow("node", "for-others lb", "drop"),
    Flow("node", "web lb :81", "reject"),
    Flow("node", "nobody cluster", "drop"),
    # this node, by its own localhost
    Flow("node", "web localhost", "pod1 pod2 pod3", MASQUERADED),
    Flow("node", "web localhost udp", "pod1 pod2 pod3", MASQUERADED, "4"),
    Flow("node", "web localhost udp", "untouched", families="6"),
    Flow("node", "far localhost", "pod3", MASQUERADED),
    Flow("node", "self-local localhost", "pod1", MASQUERADED),
    Flow("node", "draining localhost", "pod2", MASQUERADED),
    Flow("node", "for-others localhost", "pod3", MASQUERADED),
    Flow("node", "empty localhost", "reject"),
    Flow("node", "empty localhost udp", "reject", families="4"),
    Flow("node", "empty-local localhost", "reject"),
    Flow("node", "other-proxy localhost", "untouched"),
    Flow("node", "web localhost :9", "untouched"),
    # a pod of another node: where its answer wouldn't come back by this one, it is as any source outside
    Flow("pod3", "spread node", "pod1", KEPT),
    Flow("pod3", "spread node udp", "pod1", KEPT),
    Flow("pod3", "spread lb", "pod1", KEPT),
    Flow("pod3", "spread external", "pod1", KEPT),
    Flow("pod3", "away node", "drop"),
    Flow("pod3", "away lb", "drop"),
    Flow("pod3", "far node", "drop"),
    Flow("pod3", "empty-local node", "reject"),
    Flow("pod3", "web node", "pod1 pod2 pod3", MASQUERADED),
    Flow("pod3", "web cluster", "pod1 pod2 pod3", MASQUERADED),
    Flow("pod3", "inner cluster", "pod1", MASQUERADED),
    Flow("pod1", "away node", "pod4", KEPT),
    Flow("pod1", "away lb udp", "pod4", KEPT),
    Flow("node", "away node", "pod4", MASQUERADED),
    # outside
    Flow("client", "web cluster", "pod1 pod2 pod3", MASQUERADED),
    Flow("client", "web node", "pod1 pod2 pod3", MASQUERADED),
    Flow("client", "web node udp", "pod1 pod2 pod3", MASQUERADED),
    Flow("client", "web lb", "pod1 pod2 pod3", MASQUERADED),
    Flow("client", "web external udp", "pod1 pod2 pod3", MASQUERADED),
    Flow("client", "local lb", "pod1", KEPT),
    Flow("client", "local external", "pod1", KEPT),
    Flow("client", "local node", "pod1", KEPT),
    Flow("client", "local node udp", "pod1", KEPT),
    Flow("client", "local cluster", "pod1 pod3", MASQUERADED),
    Flow("client", "far lb", "drop"),
    Flow("client", "far node", "drop"),
    Flow("client", "far external udp", "drop"),
    Flow("client", "far cluster", "pod3", MASQUERADED),
    Flow("client", "drained-here lb", "pod1", KEPT),
    Flow("client", "drained-here cluster", "pod1", MASQUERADED),
    Flow("client", "hinted lb", "pod1", KEPT),
    Flow("client", "empty lb", "reject"),
    Flow("client", "empty lb udp", "reject"),
    Flow("client", "empty node", "reject"),
    Flow("client", "empty external", "reject"),
    Flow("client", "empty-local lb", "reject"),
    Flow("client", "empty-local node udp", "reject"),
    Flow("client", "for-client lb", "pod3", MASQUERADED),
    Flow("client", "for-client external", "pod3", MASQUERADED),
    Flow("client", "for-others lb", "drop"),
    Flow("client", "for-others lb udp", "drop"),
    Flow("client", "for-others node", "pod3", MASQUERADED),
    Flow("client", "for-others external", "pod3", MASQUERADED),
    Flow("client", "for-all lb", "pod3", MASQUERADED),
    Flow("client", "for-node lb", "drop"),
    Flow("client", "for-nobody-yet lb", "drop"),
    Flow("client", "for-nobody-yet node", "reject"),
    Flow("client", "web cluster :81", "reject"),
    Flow("client", "web lb :81", "reject"),
    Flow("client", "web lb udp :81", "reject"),
    Flow("client", "nobody cluster", "drop"),
    Flow("client", "web node :9", "untouched"),
    # other choices than a random one
    Flow("node", "weighted node udp", "pod1 pod2", MASQUERADED),
    Flow("client", "weighted lb", "pod1 pod2", MASQUERADED),
    Flow("node", "all-drain cluster", "pod1 pod2 pod3", MASQUERADED),
    Flow("client", "unasked external", "pod1 pod2 pod3", MASQUERADED),
    Flow("client", "maglev lb", "pod1 pod2", MASQUERADED),
    Flow("client", "maglev node udp", "pod1 pod2", MASQUERADED),
    Flow("node", "maglev cluster", "pod1 pod2", MASQUERADED),
    Flow("client", "by-client lb", "hashed", MASQUERADED),
    Flow("client", "by-client lb udp", "hashed", MASQUERADED),
    Flow("client", "by-client node", "hashed", MASQUERADED),
    Flow("client", "by-client external sctp", "hashed", MASQUERADED),
    Flow("node", "by-client cluster udp", "hashed", MASQUERADED),
    Flow("client", "by-client-local lb", "hashed", KEPT),
    Flow("client", "by-client-local node udp", "hashed", KEPT),
    Flow("client", "sticky-maglev lb", "hashed", MASQUERADED),
    Flow("client", "sticky-maglev node udp", "hashed", MASQUERADED),
    # SCTP: an INIT packet
    Flow("pod2", "self cluster sctp", "pod1", KEPT),
    Flow("pod1", "far lb sctp", "pod3", KEPT),
    Flow("node", "far cluster sctp", "pod3", MASQUERADED),
    Flow("client", "local lb sctp", "pod1", KEPT),
    Flow("client", "self lb sctp", "pod1", MASQUERADED),
    Flow("client", "far lb sctp", "drop"),
    Flow("client", "empty lb sctp", "reject"),
    Flow("client", "other-proxy cluster", "drop"),  # to this proxy an address of nobody
]

CASES = [(flow, family) for flow in FLOWS for family in flow.families]


def case_id(value: Flow | str) -> str:
    return value if isinstance(value, str) else str(value)
