"""A way out for pods (`--egress`), and its taking back: two small tables of ours, a route in each node, forwarding.

    pod ── node: masquerade as the node ── bridge ── host: masquerade as the host ──► anywhere

Forwarding is the host's own switch: turned on only when it was off, and off again when the last box that wants it
goes. A firewall of the host's that drops forwarded packets is its owner's to open.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

from kubesvc.box.definition import RUN, Box
from kubesvc.kernel import netns, sysctl
from kubesvc.kernel.links import Links
from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.objects import Chain, Hook, Rule, Table
from kubesvc.kernel.nft.transaction import AddChain, AddTable, DeleteTable, FillChain, Transaction

FORWARDING = "ipv4/ip_forward"
SRCNAT = 100  # linux/netfilter_ipv4.h NF_IP_PRI_NAT_SRC
_EVERYWHERE = IPv4Network("0.0.0.0/0")
_OFFSETS = {"saddr": 12, "daddr": 16}


def _marker(name: str) -> Path:
    """There while box `name` is the reason, or one of them, that the host forwards."""
    return RUN / name / "turned-forwarding-on"


def _table(box: Box) -> str:
    return f"kubesvc-{box.name}-egress"


def _match(which: str, network: IPv4Network) -> tuple[nft.Expression, ...]:
    """Go on only for packets whose `saddr` or `daddr` is in `network`."""
    return (
        nft.Meta(nft.META_NFPROTO),
        nft.Compare(bytes((nft.NFPROTO_IPV4,))),
        nft.Payload(nft.NETWORK, _OFFSETS[which], 4),
        nft.Mask(network.netmask.packed),
        nft.Compare(network.network_address.packed),
    )


def _masquerade(table: str, source: IPv4Network, but_to: list[IPv4Network]) -> Transaction:
    """A table that masquerades what comes from `source`, except towards `but_to`."""
    rules = [
        Rule(f"ip daddr {network} return", (*_match("daddr", network), nft.Verdict(nft.RETURN))) for network in but_to
    ]
    rules.append(Rule(f"ip saddr {source} masquerade", (*_match("saddr", source), nft.Masquerade())))
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
    nodes = box.network.network
    if sysctl.read(FORWARDING) != "1" or any(RUN.glob("*/turned-forwarding-on")):
        _marker(box.name).touch()
        sysctl.ensure(FORWARDING, "1")
    _commit(_masquerade(_table(box), nodes, [nodes]))
    for node in box.node_names:
        namespace = netns.named(box.namespace(node))
        with netns.entered(namespace):
            _commit(_masquerade("kubesvc-egress", box.pods, [box.pods, nodes]))
        with Links(namespace) as links:
            links.set_route(_EVERYWHERE, via=box.network.host, dev="eth0")


def remove(box: Box) -> None:
    """Take the host's part back; the nodes' parts go with their namespaces, or here when these stay."""
    _forget(_table(box))
    for node in box.node_names:
        namespace = netns.named(box.namespace(node))
        if netns.is_namespace(namespace):
            with netns.entered(namespace):
                _forget("kubesvc-egress")
            with Links(namespace) as links:
                links.delete_route(_EVERYWHERE, via=box.network.host, dev="eth0")
    marker = _marker(box.name)
    if marker.exists():
        with suppress(FileNotFoundError):
            marker.unlink()
        if not any(RUN.glob("*/turned-forwarding-on")):
            sysctl.ensure(FORWARDING, "0")


def _forget(table: str) -> None:
    connection = Connection()
    try:
        if connection.comment(table) is not None:
            transaction = Transaction()
            transaction.add(DeleteTable(table))
            connection.commit(transaction)
    finally:
        connection.close()
