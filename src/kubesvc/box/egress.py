"""A way out for pods (`--egress`), and its taking back: two small tables of ours, a route in each node, forwarding.

    pod ── node: masquerade as the node ── bridge ── host: masquerade as the host ──► anywhere

Forwarding is the host's own switch, one of each IP family: turned on only when it was off, and off again when the last
box that wants it goes. A machine that forwards IPv6 no longer believes the routers that told it its way out: where it
did, `accept_ra` says that it goes on. A firewall of the host's that drops forwarded packets is its owner's to open.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from kubesvc.box.definition import RUN, Box
from kubesvc.box.families import Network
from kubesvc.kernel import netns, sysctl
from kubesvc.kernel.links import Links
from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.objects import Chain, Hook, Rule, Table
from kubesvc.kernel.nft.transaction import AddChain, AddTable, DeleteTable, FillChain, Transaction
from kubesvc.kernel.rtnetlink import PROTO_RA

FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
SRCNAT = 100  # linux/netfilter_ipv4.h NF_IP_PRI_NAT_SRC
_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_OFFSETS = {(4, "saddr"): 12, (4, "daddr"): 16, (6, "saddr"): 8, (6, "daddr"): 24}
_PROTO = {4: nft.NFPROTO_IPV4, 6: nft.NFPROTO_IPV6}
_MARKERS = {4: "turned-forwarding-on", 6: "turned-ipv6-forwarding-on"}


def _marker(name: str, version: int) -> Path:
    """There while box `name` is the reason, or one of them, that the host forwards; for IPv6 with the names of the
    interfaces whose `accept_ra` was 1."""
    return RUN / name / _MARKERS[version]


def _table(box: Box) -> str:
    return f"kubesvc-{box.name}-egress"


def _match(which: str, network: Network) -> tuple[nft.Expression, ...]:
    """Go on only for packets whose `saddr` or `daddr` is in `network`."""
    return (
        nft.Meta(nft.META_NFPROTO),
        nft.Compare(bytes((_PROTO[network.version],))),
        nft.Payload(nft.NETWORK, _OFFSETS[network.version, which], network.max_prefixlen // 8),
        nft.Mask(network.netmask.packed),
        nft.Compare(network.network_address.packed),
    )


def _ip(network: Network) -> str:
    return "ip" if network.version == 4 else "ip6"


def _masquerade(table: str, sources: Iterable[Network], but_to: Iterable[Network]) -> Transaction:
    """A table that masquerades what comes from `sources`, except towards `but_to`."""
    rules = [Rule(f"{_ip(n)} daddr {n} return", (*_match("daddr", n), nft.Verdict(nft.RETURN))) for n in but_to]
    rules += [Rule(f"{_ip(n)} saddr {n} masquerade", (*_match("saddr", n), nft.Masquerade())) for n in sources]
    chain = Chain("postrouting", tuple(rules), Hook("nat", "postrouting", SRCNAT))
    transaction = Transaction()
    transaction.add(AddTable(Table(table)))
    transaction.add(AddChain(table, chain))
    transaction.add(FillChain(table, chain))
    return transaction


def _commit(transaction: Transaction) -> None:
    connection = Connection()
    try:
        connection.commit(transaction)
    finally:
        connection.close()


def ensure(box: Box) -> None:
    """Open the way out of every node of the box, or close it when the box has none."""
    if not box.egress:
        remove(box)
        return
    nodes = [network.network for network in box.networks]
    for version in box.versions:
        _forward(box, version)
    _commit(_masquerade(_table(box), nodes, nodes))
    for node in box.node_names:
        namespace = netns.named(box.namespace(node))
        with netns.entered(namespace):
            _commit(_masquerade("kubesvc-egress", box.pods, [*box.pods, *nodes]))
        with Links(namespace) as links:
            for network in box.networks:
                links.set_route(_EVERYWHERE[network.network.version], via=network.host, dev="eth0")


def _forward(box: Box, version: int) -> None:
    """Have the host forward, and remember it if it is our doing."""
    switch, others = FORWARDING[version], any(RUN.glob(f"*/{_MARKERS[version]}"))
    if sysctl.read(switch) == "1" and not others:
        return
    marker = _marker(box.name, version)
    believing = [] if version == 4 or others else _believing()
    if not marker.exists():
        marker.write_text("\n".join(believing))
    for name in believing:
        sysctl.ensure(name, "2")
    sysctl.ensure(switch, "1")


def _believing() -> list[str]:
    """The `accept_ra` switches of the interfaces by which routers told the host its way out."""
    with Links() as host:
        told = {route.dev for route in host.routes(6) if route.proto == PROTO_RA}
    return [name for dev in sorted(told) if sysctl.read(name := f"ipv6/conf/{dev}/accept_ra") == "1"]


def _forward_no_more(box: Box, version: int) -> None:
    marker = _marker(box.name, version)
    if not marker.exists():
        return
    believing = [name for name in marker.read_text().split("\n") if name]
    marker.unlink()
    others = sorted(RUN.glob(f"*/{_MARKERS[version]}"))
    if others:  # they go on, and it is theirs to put back
        if believing:
            others[0].write_text("\n".join(believing))
        return
    sysctl.ensure(FORWARDING[version], "0")
    for name in believing:
        if sysctl.read(name) == "2":
            sysctl.ensure(name, "1")


def remove(box: Box) -> None:
    """Take the host's part back; the nodes' parts go with their namespaces, or here when these stay."""
    _forget(_table(box))
    for node in box.node_names:
        namespace = netns.named(box.namespace(node))
        if netns.is_namespace(namespace):
            with netns.entered(namespace):
                _forget("kubesvc-egress")
            with Links(namespace) as links:
                for network in box.networks:
                    links.delete_route(_EVERYWHERE[network.network.version], via=network.host, dev="eth0")
    for version in FORWARDING:
        _forward_no_more(box, version)


def _forget(table: str) -> None:
    connection = Connection()
    try:
        if connection.comment(table) is not None:
            transaction = Transaction()
            transaction.add(DeleteTable(table))
            connection.commit(transaction)
    finally:
        connection.close()
