"""The network security group's document: who may reach which Service. Pure.

A Standard load balancer is closed until a rule opens it. The group is the user's, shared with rules of theirs: ours
have free priorities, from 500 up what is allowed, from 4096 down what is denied, and keep them while they live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.providers.azure.merged import Merged, prefix, same
from kubesvc.loadbalancer.providers.azure.wish import Wish

ALLOW, DENY = range(500, 4000), range(4096, 3999, -1)
RULES = "securityRules"


class Door(msgspec.Struct, frozen=True):
    """A rule: `sources` are networks, or one service tag, or "*"."""

    name: str
    allows: bool
    protocol: str  # Tcp | Udp | *
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    ports: tuple[str, ...]


def doors(wish: Wish, destinations: Mapping[str, Sequence[str]]) -> tuple[Door, ...]:
    """`destinations`: family -> where the nodes see the packets go: the VIP, or without floating IP the nodes."""
    found: list[Door] = []
    for family in wish.families:
        where, short = tuple(destinations.get(family, ())), family.lower().replace("ip", "")
        if not where or not wish.ports:
            continue
        networks = wish.sources[family] if wish.sources is not None else ()
        openings = [networks] if networks else []
        openings += [(tag,) for tag in wish.service_tags]
        if wish.sources is None and not wish.service_tags and not wish.internal:
            openings = [("Internet",)]
        for number, sources in enumerate(openings):
            for protocol in sorted({p.protocol for p in wish.ports}):
                ports = tuple(
                    str(p.port if wish.floating else p.node_port) for p in wish.ports if p.protocol == protocol
                )
                name = f"{prefix(wish.uid)}{short}-{protocol.lower()}-{number}"
                found.append(Door(name, True, protocol, sources, where, ports))
        if wish.deny_rest:
            # Without floating IP the nodes' addresses are everybody's: then only these ports are closed.
            ports = ("*",) if wish.floating else tuple(sorted({str(p.node_port) for p in wish.ports}))
            found.append(Door(f"{prefix(wish.uid)}{short}-deny", False, "*", ("*",), where, ports))
    return tuple(found)


def merge(document: JSON, changes: Mapping[str, tuple[Door, ...] | None]) -> Merged:
    """`changes`: uid -> its rules, None: none."""
    before: list[JSON] = list(document["properties"].get(RULES) or ())
    gone = tuple(prefix(uid) for uid in changes)
    mine = {rule["name"]: rule for rule in before if rule["name"].startswith(gone)}
    rules = [rule for rule in before if rule["name"] not in mine]
    taken = {r["properties"]["priority"] for r in before if r["properties"]["direction"] == "Inbound"}
    refused: dict[str, tuple[str, str]] = {}
    for uid, wanted in changes.items():
        made: list[JSON] = []
        for door in wanted or ():
            there = mine.get(door.name)
            number = there["properties"]["priority"] if there else _free(ALLOW if door.allows else DENY, taken)
            if number is None:
                refused[uid] = ("SecurityGroupFull", "the network security group has no priority left; remove rules")
                break
            taken.add(number)
            made.append(_rule(door, number))
        rules += [r for n, r in mine.items() if n.startswith(prefix(uid))] if uid in refused else made
    document = {**document, "properties": {**document["properties"], RULES: rules}}
    return Merged(document, not same(before, rules), refused)


def _free(numbers: Iterable[int], taken: set[int]) -> int | None:
    return next((n for n in numbers if n not in taken), None)


def _rule(door: Door, priority: int) -> JSON:
    properties: JSON = {
        "protocol": door.protocol,
        "access": "Allow" if door.allows else "Deny",
        "direction": "Inbound",
        "priority": priority,
        "sourcePortRange": "*",
        **_one_or_more("sourceAddressPrefix", "sourceAddressPrefixes", door.sources),
        **_one_or_more("destinationAddressPrefix", "destinationAddressPrefixes", door.destinations),
        **_one_or_more("destinationPortRange", "destinationPortRanges", door.ports),
    }
    return {"name": door.name, "properties": properties}


def _one_or_more(one: str, more: str, values: Sequence[str]) -> JSON:
    return {one: values[0]} if len(values) == 1 else {more: list(values)}
