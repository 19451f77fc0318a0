"""What the data plane needs of its network namespace besides the table: forwarding, and a route to the Services.

Without a route, connect() to a cluster IP fails before the nat output chain sees a packet; the packet never takes that
route, since dnat chooses another. All of it is of this namespace alone, but for `nf_conntrack_max`: only a proxy that
was told to raises it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from kubesvc.kernel import sysctl
from kubesvc.kernel.links import PROTO_KUBESVC, Links
from kubesvc.kernel.rtnetlink import Address, Network
from kubesvc.proxy.config import ProxyConfig

log = logging.getLogger(__name__)

_SYSCTLS = {
    "ipv4/ip_forward": "1",
    # Strict mode drops replies of connections whose way back differs; a link's value is the greater of it and `all`.
    "ipv4/conf/all/rp_filter": "2",
    # A packet that connection tracking thinks out of window must not reach a pod untranslated and be answered by RST.
    "netfilter/nf_conntrack_tcp_be_liberal": "1",
}
MOST_CONNECTIONS = "nf_conntrack_max"
_SYSCTLS_6 = {"ipv6/conf/all/forwarding": "1"}


def prepare(config: ProxyConfig) -> None:
    """Set sysctls and add the routes. What can't be done is logged, and the proxy goes on."""
    wanted = dict(_SYSCTLS)
    if any(network.version == 6 for network in (*config.service_cidrs, *config.pod_cidrs)):
        wanted |= _SYSCTLS_6
    wanted |= {f"netfilter/{name}": str(value) for name, value in config.sysctls if name != MOST_CONNECTIONS}
    for name, value in wanted.items():
        sysctl.ensure(name, value)
    if most := dict(config.sysctls).get(MOST_CONNECTIONS):
        sysctl.ensure_at_least(f"netfilter/{MOST_CONNECTIONS}", most)
    # A load balancer's address lies in the network its packets come from: the kernel would redirect their senders to
    # each other, and count that against the ICMP errors it may send them. A link redirects if it or `all` says so.
    sysctl.ensure_each("ipv4/conf/*/send_redirects", "0")
    with Links() as links:
        for network in config.service_cidrs:
            _route(links, network, _source(config, network))


def change_routes(config: ProxyConfig, before: Iterable[Network], now: Iterable[Network]) -> None:
    """Route to the networks that came, and no longer to those that went. What can't be done is logged."""
    gone, come = set(before) - set(now), set(now) - set(before)
    with Links() as links:
        for network in come:
            _route(links, network, _source(config, network))
        for network in gone:
            source = _source(config, network)
            link = links.holder(source) if source is not None else None
            if link is not None:
                try:
                    links.delete_route(network, dev=link)
                except OSError as error:
                    log.warning("the route to %s stays: %s", network, error)


def _source(config: ProxyConfig, network: Network) -> Address | None:
    """The node's own address of the network's family."""
    return next((ip for ip in config.node_ips if ip.version == network.version), None)


def _route(links: Links, network: Network, source: Address | None) -> None:
    """Straight onto the link that has the node's address."""
    link = links.holder(source) if source is not None else None
    if source is None or link is None:
        log.warning("no route to %s: no link here has the node's address %s", network, source or "of that family")
        return
    try:
        links.set_route(network, dev=link, source=source, proto=PROTO_KUBESVC)
    except OSError as error:
        log.warning("no route to %s: %s; programs on this node can't connect to cluster IPs", network, error)
