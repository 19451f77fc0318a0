"""The world of `flows` in network namespaces: a node with its data plane, its neighbours, a client, four pods."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address

from kubesvc.kernel.nft.connection import Connection
from kubesvc.proxy import localhost, namespace
from kubesvc.proxy.config import ProxyConfig
from kubesvc.proxy.nftables import NftablesBackend
from support.flows import CLUSTER_CIDRS, HOSTS, NETWORKS, PODS, RANGES
from support.net import Lab, Namespace

# family -> host -> the network of its pods
BLOCKS = {
    "4": {"node": "10.244.0.0/24", "peer": "10.244.1.0/24", "third": "10.244.2.0/24"},
    "6": {"node": "fd00:10:244::/64", "peer": "fd00:10:244:1::/64", "third": "fd00:10:244:2::/64"},
}
CONFIG = ProxyConfig(
    "node1",
    tuple(ip_address(HOSTS[f]["node"]) for f in "46"),
    RANGES.service_cidrs,
    CLUSTER_CIDRS,
    localhost_node_ports=True,
)


@dataclass
class Wires:
    """name -> namespace: node, peer, third, client, pod1 … pod4; and the node's data plane, empty."""

    at: dict[str, Namespace]
    backend: NftablesBackend


def build(lab: Lab) -> Wires:
    net = lab.namespace("net")
    net.ip("link", "add", "br0", "type", "bridge")
    net.ip("link", "set", "br0", "up")
    at: dict[str, Namespace] = {}
    for name in ("node", "peer", "third", "client"):
        at[name] = lab.namespace(name)
        lab.link(net, f"to-{name}", at[name], "eth0")
        net.ip("link", "set", f"to-{name}", "master", "br0")
        at[name].ip("addr", "add", f"{HOSTS['4'][name]}/24", "dev", "eth0")
        at[name].ip("addr", "add", f"{HOSTS['6'][name]}/64", "dev", "eth0", "nodad")
    for pod in ("pod1", "pod2", "pod3", "pod4"):
        host = at[{"pod3": "peer", "pod4": "third"}.get(pod, "node")]
        at[pod] = lab.pod(host, pod, PODS["4"][pod])
        lab.second_address(host, at[pod], pod, PODS["6"][pod])
        for family in (socket.AF_INET, socket.AF_INET6):
            lab.serve(at[pod], 8080, pod, family=family)
            lab.serve(at[pod], 8080, pod, udp=True, family=family)
    for family in "46":
        for host, network in BLOCKS[family].items():
            for name in ("node", "peer", "third"):
                if name != host:
                    at[name].ip("route", "add", network, "via", HOSTS[family][host])
        node = HOSTS[family]["node"]
        at["client"].ip("route", "add", BLOCKS[family]["node"], "via", node)
        for network in NETWORKS[family]:
            at["client"].ip("route", "add", network, "via", node)
            at["peer"].ip("route", "add", network, "via", node)
        for network in NETWORKS[family][:2]:
            at["node"].ip("route", "add", network, "dev", "eth0")
    at["node"].call(lambda: namespace.prepare(CONFIG))
    at["node"].call(localhost.open_way)
    for limit in ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"):  # or a quick test isn't told of every refusal
        at["node"].sysctl(limit, "0")
    nft = at["node"].call(Connection)
    assert isinstance(nft, Connection)
    return Wires(at, NftablesBackend(nft, RANGES))
