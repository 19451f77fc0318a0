"""The balancers of a desk's cloud as nftables rules. Pure: balancers and who is healthy -> chains.

    prerouting (filter) ─► guard    from this machine to an internal balancer, from outside its sources: drop
                        ─► choose   a new connection to a VIP: a node's number into the connection's mark
                                    the connection's mark ─► the packet's: `ip rule` routes it to that node
    prerouting (nat)    ─► translate  a new connection to a node port: dnat; the source stays
    input (filter)      ─► own      a balancer's address, but for the ports it ends connections at: drop

A table on a desk has a handful of balancers: a rule for each listener and node, and all replaced in one transaction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.expressions import Expression
from kubesvc.kernel.nft.objects import Chain, Hook, Rule
from kubesvc.loadbalancer.providers.desk.model import Balancer, Listener, Target

TABLE = "kubesvc-cloud"
MARK = 0x4000_0000  # bits beside those of proxies
GUARD, MANGLE, DSTNAT, FILTER = -160, -150, -100, 0

PROTOCOLS = {"TCP": 6, "UDP": 17}
_SOURCE, _DESTINATION = 12, 16  # offsets in an IPv4 header
_IPV4 = (nft.Meta(nft.META_NFPROTO), nft.Compare(bytes((nft.NFPROTO_IPV4,))))
_NEW = (nft.Conntrack(nft.CT_STATE), nft.Bitwise(nft.CT_STATE_NEW), nft.Compare(bytes(4), negated=True))
_SEED = 0x6B756265

Choose = Callable[[Balancer, Listener], Sequence[Target]]
"""The nodes that a listener's new connections may go to."""


def mark(address: str) -> int:
    """A node's number: its mark and its routing table."""
    return MARK | int(IPv4Address(address)) & 0xFF_FFFF


def chains(balancers: Iterable[Balancer], choose: Choose, networks: Sequence[IPv4Network], host: str) -> list[Chain]:
    """`networks` are inside, all but `host`."""
    known = list(balancers)
    guard: list[Rule] = []
    allowed: list[Chain] = []
    for number, balancer in enumerate(known):
        if rules := tuple(_guard(balancer, networks, host)):
            name = f"allowed-{number}"
            allowed.append(Chain(name, rules))
            guard.append(_rule(_to(balancer.address), ("jump " + name, (nft.Verdict(nft.JUMP, name),))))
    chosen: list[Rule] = []
    translated: list[Rule] = []
    own: list[Rule] = []
    for balancer in known:
        for listener in balancer.listeners:
            nodes = choose(balancer, listener)
            match = _at(balancer, listener)
            if listener.mode == "proxy":
                own.append(_rule(match, ("accept", (nft.Verdict(nft.ACCEPT),))))
            elif not nodes:
                chosen.append(_rule(match, _IS_NEW, _DROP))
            elif listener.mode == "vip":
                chosen += _spread(match, nodes, balancer.affinity, _remember)
            else:
                translated += _spread(match, nodes, balancer.affinity, partial(_dnat, port=listener.node_port))
        own.append(_rule(_to(balancer.address), _DROP))
    chosen.append(_rule(_IS_MARKED, ("ct direction original", _DIRECTION), ("meta mark set ct mark", _TO_PACKET)))
    return [
        *allowed,
        Chain("guard", tuple(guard), Hook("filter", "prerouting", GUARD)),
        Chain("choose", tuple(chosen), Hook("filter", "prerouting", MANGLE)),
        Chain("translate", tuple(translated), Hook("nat", "prerouting", DSTNAT)),
        Chain("own", tuple(own), Hook("filter", "input", FILTER)),
    ]


# ── statements: text and expressions ─────────────────────────────────────────────────────────────────────────────────

Statement = tuple[str, tuple[Expression, ...]]

_DROP: Statement = ("drop", (nft.Verdict(nft.DROP),))
_IS_NEW: Statement = ("ct state new", _NEW)
_UNMARKED: Statement = ("ct mark 0", (nft.Conntrack(nft.CT_MARK), nft.Compare(bytes(4))))
_IS_MARKED: Statement = ("ct mark != 0", (nft.Conntrack(nft.CT_MARK), nft.Compare(bytes(4), negated=True)))
_DIRECTION = (nft.Conntrack(nft.CT_DIRECTION), nft.Compare(bytes((nft.CT_ORIGINAL,))))
_TO_PACKET = (nft.Conntrack(nft.CT_MARK), nft.SetMeta(nft.META_MARK))


def _rule(*statements: Statement) -> Rule:
    text = " ".join(text for text, _ in statements)
    return Rule(text, tuple(e for _, expressions in statements for e in expressions))


def _to(address: str) -> Statement:
    packed = IPv4Address(address).packed
    return f"ip daddr {address}", (*_IPV4, nft.Payload(nft.NETWORK, _DESTINATION, 4), nft.Compare(packed))


def _from(network: IPv4Network) -> tuple[Expression, ...]:
    load = (*_IPV4, nft.Payload(nft.NETWORK, _SOURCE, 4))
    return (*load, nft.Mask(network.netmask.packed), nft.Compare(network.network_address.packed))


def _at(balancer: Balancer, listener: Listener) -> Statement:
    text, to = _to(balancer.address)
    text += f" {listener.protocol.lower()} dport {listener.port}"
    protocol = (nft.Meta(nft.META_L4PROTO), nft.Compare(bytes((PROTOCOLS.get(listener.protocol, 0),))))
    port = (nft.Payload(nft.TRANSPORT, 2, 2), nft.Compare(struct.pack(">H", listener.port)))
    return text, (*to, *protocol, *port)


def _guard(balancer: Balancer, networks: Sequence[IPv4Network], host: str) -> Iterator[Rule]:
    if balancer.internal:
        yield _rule((f"ip saddr {host}", _from(IPv4Network(host))), _DROP)
    inside = [IPv4Network(text) for text in balancer.sources] or (list(networks) if balancer.internal else [])
    for network in inside:
        yield _rule((f"ip saddr {network}", _from(network)), ("return", (nft.Verdict(nft.RETURN),)))
    if inside:
        yield _rule(_DROP)


def _spread(
    match: Statement, nodes: Sequence[Target], affinity: bool, send: Callable[[Target], Statement]
) -> Iterator[Rule]:
    """A rule a node: with equal chances, or by the client's address."""
    count = len(nodes)
    for number, node in enumerate(nodes):
        draw: Statement = ("", ())
        if affinity and count > 1:
            load = (nft.Payload(nft.NETWORK, _SOURCE, 4), nft.JenkinsHash(0, 4, count, _SEED))
            draw = (f"jhash ip saddr mod {count} {number}", (*load, nft.Compare(nft.native32(number))))
        elif number < count - 1:
            left = count - number
            draw = (f"numgen random mod {left} 0", (nft.RandomNumber(left), nft.Compare(bytes(4))))
        yield _rule(match, _IS_NEW, _UNMARKED, draw, send(node))


def _remember(node: Target) -> Statement:
    number = mark(node.address)
    return f"ct mark set {number:#x}", (nft.Immediate(nft.native32(number)), nft.SetConntrack(nft.CT_MARK))


def _dnat(node: Target, port: int) -> Statement:
    load = (nft.Immediate(IPv4Address(node.address).packed, 0), nft.Immediate(struct.pack(">H", port), 1))
    return f"dnat ip to {node.address}:{port}", (*load, nft.Dnat(nft.NFPROTO_IPV4, 0, 1))
