"""What a proxy needs to know before it starts. Nothing is read from the environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import msgspec

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOOPBACK = IPv4Address("127.0.0.1")
LOOPBACK6 = IPv6Address("::1")
PRIMARY = "primary"
_ALL = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class ProxyConfig(msgspec.Struct, frozen=True):
    """`node_ips` are this node's own addresses, the primary of each family first. Node ports answer on the primary
    addresses, or with `node_port_addresses` on those of `node_ips` inside these ranges."""

    node_name: str
    node_ips: tuple[IPv4Address | IPv6Address, ...]
    service_cidrs: tuple[IPv4Network | IPv6Network, ...]
    """Where cluster IPs come from, until the ServiceCIDR objects have said it."""
    pod_cidrs: tuple[IPv4Network | IPv6Network, ...]
    """Of the whole cluster: a source inside them is a pod, and keeps its address on the way to a cluster IP."""
    pods_by_node: bool = False
    """Count as pods only sources in the podCIDRs of this Node, once it has any: answers to other nodes' pods don't come
    back by this node, so they are as any source outside."""
    node_port_addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    localhost_node_ports: bool = False
    """Node ports answer on 127.0.0.1 and ::1 too, for programs of the node itself."""
    load_balancer_ranges: tuple[tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address], ...] = ()
    """First and last address of ranges that hold load balancers' addresses and nobody else's: a port that no Service
    has there is refused."""
    proxy_name: str = ""
    """Services labelled service.kubernetes.io/service-proxy-name are left to the proxy of that name."""
    masquerade_all: bool = False
    """Masquerade whatever goes through a cluster IP, pods' connections too: some pod networks need it."""
    sysctls: tuple[tuple[str, int], ...] = ()
    """Names below net/netfilter/ and what they are to be, besides what the data plane needs."""
    configure_namespace: bool = True
    """Set the sysctls and routes the data plane needs in this network namespace."""
    healthz_address: tuple[str, int] | None = None
    """Where /healthz and /livez answer; None: nowhere. Upstream's port is 10256."""
    metrics_address: tuple[str, int] | None = None
    """Where /metrics and /proxyMode answer; None: nowhere. Upstream's port is 10249."""
    follow_service_cidrs: bool = True
    """Let the ServiceCIDR objects say where cluster IPs come from."""
    report_programmed: bool = True
    """Write into the node's Lease what is in force while endpoints terminate, for the agents that wait for it."""

    def node_port_ips(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses node ports answer on for others; loopback never."""
        usable = [ip for ip in self.node_ips if not ip.is_loopback]
        if self.node_port_addresses:
            return tuple(ip for ip in usable if any(ip in network for network in self.node_port_addresses))
        first = {ip.version: ip for ip in reversed(usable)}  # version -> primary
        return tuple(first[version] for version in sorted(first))


def own_ips(primary: Sequence[Address], local: Iterable[Address]) -> tuple[Address, ...]:
    """What `node_ips` is, of a node's primary addresses and those of its links."""
    return (*primary, *(ip for ip in local if ip not in primary and not ip.is_link_local))


def check_node_port_addresses(words: Iterable[str]) -> None:
    """Raises ValueError for a word that is neither a CIDR nor `primary`, `all` or `localhost`."""
    for word in words:
        if word not in (PRIMARY, "all", "localhost"):
            try:
                ip_network(word)
            except ValueError as error:
                raise ValueError(
                    f"{error}; expected CIDRs such as 192.0.2.0/24, or {PRIMARY}, all, localhost"
                ) from error


def node_port_networks(words: Iterable[str], primary: Iterable[Address]) -> tuple[Network, ...]:
    """What `node_port_addresses` is, of words that were checked; `primary` are the node's primary addresses."""
    if set(words := tuple(words)) == {PRIMARY}:
        return ()
    found: dict[Network, None] = {}
    for word in words:
        if word == PRIMARY:
            found |= dict.fromkeys(ip_network(ip) for ip in primary)
        elif word == "all":
            found |= dict.fromkeys(_ALL)
        else:
            found[ip_network("127.0.0.0/8" if word == "localhost" else word)] = None
    return tuple(found)
