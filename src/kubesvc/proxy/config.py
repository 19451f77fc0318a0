"""What a proxy needs to know before it starts. Nothing is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """`node_ips` are this node's own addresses, the primary of each family first. Node ports answer on the primary
    addresses, or with `node_port_addresses` on those of `node_ips` inside these ranges."""

    node_name: str
    node_ips: tuple[IPv4Address | IPv6Address, ...]
    service_cidrs: tuple[IPv4Network | IPv6Network, ...]
    """Where cluster IPs come from, until the ServiceCIDR objects have said it."""
    pod_cidrs: tuple[IPv4Network | IPv6Network, ...]
    """Of the whole cluster: a source inside them is a pod, and keeps its address on the way to a cluster IP."""
    node_port_addresses: tuple[IPv4Network | IPv6Network, ...] = field(default=())
    load_balancer_ranges: tuple[tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address], ...] = ()
    """First and last address of ranges that hold load balancers' addresses and nobody else's: a port that no Service
    has there is refused."""
    proxy_name: str = ""
    """Services labelled service.kubernetes.io/service-proxy-name are left to the proxy of that name."""
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
        """The addresses node ports answer on; loopback never."""
        usable = [ip for ip in self.node_ips if not ip.is_loopback]
        if self.node_port_addresses:
            return tuple(ip for ip in usable if any(ip in network for network in self.node_port_addresses))
        first = {ip.version: ip for ip in reversed(usable)}  # version -> primary
        return tuple(first[version] for version in sorted(first))
