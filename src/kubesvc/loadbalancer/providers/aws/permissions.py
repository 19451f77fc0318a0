"""A security group's rules, as EC2 writes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubesvc.loadbalancer.providers.aws.model import Permission


def to_wire(rules: Iterable[Permission]) -> list[dict[str, Any]]:
    return [
        {"IpProtocol": rule.protocol, "FromPort": rule.first, "ToPort": rule.last} | _source(rule.source)
        for rule in sorted(rules, key=lambda r: (r.protocol, r.first, r.last, r.source))
    ]


def _source(source: str) -> dict[str, Any]:
    note = {"Description": "kubesvc"}
    if source.startswith("sg-"):
        return {"UserIdGroupPairs": [{"GroupId": source} | note]}
    if source.startswith("pl-"):
        return {"PrefixListIds": [{"PrefixListId": source} | note]}
    if ":" in source:
        return {"Ipv6Ranges": [{"CidrIpv6": source} | note]}
    return {"IpRanges": [{"CidrIp": source} | note]}


def from_wire(wire: Iterable[dict[str, Any]]) -> set[Permission]:
    """One for each source. A rule of all protocols has ports 0 to 65535."""
    found: set[Permission] = set()
    for rule in wire:
        sources = [
            *(r["CidrIp"] for r in rule.get("IpRanges", ())),
            *(r["CidrIpv6"] for r in rule.get("Ipv6Ranges", ())),
            *(r["PrefixListId"] for r in rule.get("PrefixListIds", ())),
            *(r["GroupId"] for r in rule.get("UserIdGroupPairs", ())),
        ]
        ports = rule.get("FromPort", 0), rule.get("ToPort", 65535)
        found |= {Permission(rule["IpProtocol"], *ports, source) for source in sources}
    return found
