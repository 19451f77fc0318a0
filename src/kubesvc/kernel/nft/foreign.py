"""Other people's filters, read: base chains at a hook, and their rules as far as one can tell what they do.

Read, never written. `iptables-nft`, firewalld, Docker and ufw all show here; `kernel.iptables` tells what the old
`iptables-legacy` has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from kubesvc.kernel.netlink import NetlinkSocket, attributes

_NETLINK_NETFILTER = 12
_GET_CHAIN, _GET_RULE = 0x0A04, 0x0A07  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GET*
FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}  # enum nfproto
_HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}
_DROP = 0  # NF_DROP
_ACCEPT = 1
_QUIET = ("counter", "log", "immediate", "reject", "comment", "limit")
_TRANSPORT = struct.pack(">I", 2)  # NFT_PAYLOAD_TRANSPORT_HEADER
_DESTINATION_PORT = struct.pack(">I", 2)  # its offset there, and its length

Ports = tuple[tuple[int, int], ...]  # ranges, both ends included


class Rule(msgspec.Struct, frozen=True):
    """What can be said of a rule. `compared`: the values it compares with, packed."""

    chain: str
    ends: str  # accept, drop, or ""
    conditional: bool
    compared: frozenset[bytes]
    sides: frozenset[str]  # saddr, daddr: whose address it looks at
    ports: Ports | None = None
    """The destination ports it is about; None: it doesn't look, or looks them up in a set (`unclear`)."""
    unclear: bool = False


class BaseChain(msgspec.Struct, frozen=True):
    """A chain where packets enter a table. `rules` are those of all chains of its table."""

    family: str
    table: str
    name: str
    hook: str
    drops_by_policy: bool
    rules: tuple[Rule, ...]
    legacy: bool = False
    """Whether it is iptables-legacy's."""


class Filters:
    """A reader of the namespace it was made in. Not to be shared between threads at one time."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(_NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def read(self, own_table: str) -> list[BaseChain]:
        """Every base chain of type filter, but those of inet OWN_TABLE. Raises OSError."""
        rules: dict[tuple[str, str], list[Rule]] = {}  # family, table -> rules
        for body in self._netlink.dump(_GET_RULE, struct.pack("=BBH", 0, 0, 0)):
            found = attributes(body, 4)
            if (family := FAMILIES.get(body[0])) and 4 in found:
                rules.setdefault((family, _text(found[1])), []).append(_rule(found))
        chains: list[BaseChain] = []
        for body in self._netlink.dump(_GET_CHAIN, struct.pack("=BBH", 0, 0, 0)):
            found = attributes(body, 4)
            family, table = FAMILIES.get(body[0], ""), _text(found.get(1, b""))
            if not family or 4 not in found or _text(found.get(7, b"")) != "filter" or table == own_table:
                continue
            (hook,) = struct.unpack(">I", attributes(found[4])[1])
            (policy,) = struct.unpack(">I", found.get(5, struct.pack(">I", _ACCEPT)))
            own = tuple(rules.get((family, table), ()))
            chains.append(BaseChain(family, table, _text(found[3]), _HOOKS.get(hook, ""), policy == _DROP, own))
        return chains


def _rule(found: dict[int, bytes]) -> Rule:
    ends, conditional, unclear = "", False, False
    compared: set[bytes] = set()
    sides: set[str] = set()
    ports: Ports | None = None
    at_port = False  # does the register hold the destination port?
    for name, data in _expressions(found[4]):
        conditional = conditional or not (name in _QUIET or _is_xt_quiet(name, data))
        match name:
            case "immediate":
                ends = _verdict(data) or ends
            case "reject":
                ends = "drop"
            case "target" if data.get(1) == b"REJECT\0":  # NFTA_TARGET_NAME: a part of iptables itself
                ends = "drop"
            case "cmp" | "range":
                values = [attributes(data.get(n, b"")).get(1, b"") for n in (3, 4)]  # NFTA_CMP_DATA, NFTA_RANGE_*_DATA
                if at_port:
                    first = int.from_bytes(values[0], "big")
                    ports = (*(ports or ()), (first, int.from_bytes(values[1], "big") or first))
                else:
                    compared.add(values[0])
            case "lookup":
                unclear = unclear or at_port
            case "payload":
                sides.add(_side(data))
                at_port = (data.get(2), data.get(3), data.get(4)) == (_TRANSPORT, _DESTINATION_PORT, _DESTINATION_PORT)
            case "match":  # NFTA_MATCH_NAME, NFTA_MATCH_INFO
                of_match = match_ports(_text(data[1]), data[3])
                ports = of_match if of_match is not None else ports
    return Rule(_text(found[2]), ends, conditional, frozenset(compared), frozenset(sides) - {""}, ports, unclear)


def match_ports(name: str, data: bytes) -> Ports | None:
    """The destination ports of a match of iptables': tcp, udp and multiport; None for others. linux/netfilter/xt_*.h"""
    if name in ("tcp", "udp"):
        first, last = struct.unpack_from("=HH", data, 4)
        return ((first, last),) if (first, last) != (0, 0xFFFF) else None
    if name == "multiport":
        flags, count = data[0], data[1]
        ports = struct.unpack_from(f"={count}H", data, 2)
        ranged = data[32 : 32 + count]  # is it the first of a range?
        after = [False, *map(bool, ranged)]
        return tuple(
            (port, ports[n + 1] if ranged[n] else port) for n, port in enumerate(ports) if flags and not after[n]
        )
    return None


def _is_xt_quiet(name: str, data: dict[int, bytes]) -> bool:
    return (name == "match" and _text(data[1]) in _QUIET) or (name == "target" and data.get(1) == b"REJECT\0")


def _expressions(listed: bytes) -> Iterator[tuple[str, dict[int, bytes]]]:
    """Name and attributes of each: a list repeats one attribute type, which a dict can't hold."""
    start = 0
    while start + 4 <= len(listed):
        (length,) = struct.unpack_from("=H", listed, start)
        found = attributes(listed[start + 4 : start + length])
        yield _text(found.get(1, b"")), attributes(found.get(2, b""))
        start += max(4, (length + 3) & ~3)


def _verdict(data: dict[int, bytes]) -> str:
    """NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE."""
    code = attributes(attributes(data.get(2, b"")).get(2, b"")).get(1, b"")
    return {_DROP: "drop", _ACCEPT: "accept"}.get(struct.unpack(">i", code)[0], "") if len(code) == 4 else ""


def _side(data: dict[int, bytes]) -> str:
    """NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET: the network header's addresses, of IPv4 or IPv6."""
    if data.get(2) != struct.pack(">I", 1):
        return ""
    (offset,) = struct.unpack(">I", data.get(3, bytes(4)))
    return {12: "saddr", 8: "saddr", 16: "daddr", 24: "daddr"}.get(offset, "")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
