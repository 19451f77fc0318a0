"""The network of a box's cloud (`kubesvc up --cloud`): where its balancers live, and the nodes' way back to them.

    host, clients ──► bridge ──► kubesvc-NAME-cloud: a balancer's address ──► node
                  ◄──            ◄── connection came from there? ── packets that answer it

A node answers whoever asked it, on the shortest way. What came through the cloud must go back through it, as in a
cloud's own network: a table in each node marks connections that come from the cloud's link, and routes their answers.
"""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

from kubesvc.box.definition import Box
from kubesvc.kernel import netns, sysctl
from kubesvc.kernel.links import Links
from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.objects import Chain, Hook, Rule, Table
from kubesvc.kernel.nft.transaction import AddChain, AddTable, FillChain, Transaction
from kubesvc.kernel.rtnetlink import mac_bytes

NAMESPACE = "cloud"
TABLE = "kubesvc-cloud"
MARK = 0x2000_0000  # beside the proxy's bit 14
MANGLE = -150
PRIORITY = 90  # of `ip rule`
_EVERYWHERE = IPv4Network("0.0.0.0/0")
_SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/eth0/rp_filter": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/eth0/send_redirects": "0",
    "ipv4/conf/eth0/accept_local": "1",  # answers bear a balancer's address as their source
    "netfilter/nf_conntrack_tcp_be_liberal": "1",
}


def ensure_balancers(box: Box) -> None:
    """What the balancers' namespace, whose link is there, is set to."""
    namespace = netns.named(box.namespace(NAMESPACE))
    with netns.entered(namespace):
        for name, value in _SETTINGS.items():
            sysctl.ensure(name, value)
    with Links(namespace) as links:
        links.add_address("eth0", IPv4Interface((box.network.cloud, box.network.network.prefixlen)))


def ensure_nodes(box: Box) -> None:
    """Each node's way back."""
    with Links(netns.named(box.namespace(NAMESPACE))) as links:
        mac = links.mac("eth0")
    for name in box.node_names:
        namespace = netns.named(box.namespace(name))
        with Links(namespace) as links:
            links.add_rule(PRIORITY, MARK, MARK)
            links.set_route(_EVERYWHERE, via=box.network.cloud, dev="eth0", table=MARK)
        with netns.entered(namespace):
            _commit(_way_back(mac))


def _way_back(mac: str) -> tuple[Chain, ...]:
    from_cloud = (nft.Payload(nft.LINK, 6, 6), nft.Compare(mac_bytes(mac)))
    new = (nft.Conntrack(nft.CT_STATE), nft.Bitwise(nft.CT_STATE_NEW), nft.Compare(bytes(4), negated=True))
    mark = (nft.Immediate(nft.native32(MARK)), nft.SetConntrack(nft.CT_MARK))
    answers = (nft.Conntrack(nft.CT_DIRECTION), nft.Compare(bytes((nft.CT_REPLY,))))
    marked = (nft.Conntrack(nft.CT_MARK), nft.Compare(nft.native32(MARK)))
    route = (nft.Immediate(nft.native32(MARK)), nft.SetMeta(nft.META_MARK))
    coming = Rule(f"ether saddr {mac} ct state new ct mark set {MARK:#x}", (*from_cloud, *new, *mark))
    going = Rule(f"ct direction reply ct mark {MARK:#x} meta mark set {MARK:#x}", (*answers, *marked, *route))
    return (
        Chain("prerouting", (coming, going), Hook("filter", "prerouting", MANGLE)),
        Chain("output", (going,), Hook("route", "output", MANGLE)),
    )


def _commit(chains: tuple[Chain, ...]) -> None:
    transaction = Transaction()
    transaction.add(AddTable(Table(TABLE)))
    for chain in chains:
        transaction.add(AddChain(TABLE, chain))
        transaction.add(FillChain(TABLE, chain))
    connection = Connection()
    try:
        connection.commit(transaction)
    finally:
        connection.close()
