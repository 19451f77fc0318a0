"""Public names of LoadBalancer Services: who has which, and what it means in DNS. Pure.

    kubesvc.dev/hostname: shop.example.com,*.shop.example.com        status.loadBalancer.ingress
        in one of our public zones ──► served                         ip ───────► A, AAAA
        in nobody's that we know ────► the record to create, said     hostname ─► CNAME (not at a zone's apex)

Two Services that ask for one name: the older one has it, until it no longer asks. Leaving a name to the oldest needs no
memory, so that every node's server decides alike.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from kubesvc.api.core import Service
from kubesvc.api.labels import PUBLIC_HOSTNAME
from kubesvc.dns import wire
from kubesvc.dns.records import Record
from kubesvc.dns.zones import Zones

Key = tuple[str, str]  # (namespace, name) of a Service

TO_CREATE_TTL = 300  # seconds, of records that somebody else is to create
NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Finding(NamedTuple):
    """What there is to say about a Service: an Event's reason and message."""

    warning: bool
    reason: str
    message: str


def asked(service: Service) -> list[str]:
    """What the annotation lists, lower-case, without dots at the end, each once; whether it is a name or not."""
    text = service.metadata.annotations.get(PUBLIC_HOSTNAME, "")
    parts = (part.strip().lower().removesuffix(".") for part in text.split(","))
    return list(dict.fromkeys(part for part in parts if part))


def encoded(name: str) -> bytes | None:
    """The wire name of a full public name, None when it isn't one."""
    if not NAME.fullmatch(name):
        return None
    try:
        return wire.encode_name(name)
    except wire.BadName:
        return None


def targets(service: Service) -> tuple[list[bytes], str]:
    """(packed addresses, else one host name) of the Service's balancer; ([], "") while it has none."""
    ingress = service.status.load_balancer.ingress
    addresses = list(dict.fromkeys(ipaddress.ip_address(one.ip).packed for one in ingress if one.ip))
    hosts = [one.hostname.lower() for one in ingress if one.hostname]
    return addresses, hosts[0] if hosts and not addresses else ""


def records(name: bytes, service: Service, ttl: int, *, at_apex: bool) -> list[Record]:
    """What `name` is while `service` has it. A CNAME can't stand at an apex, beside SOA and NS."""
    addresses, host = targets(service)
    if host and not at_apex:
        try:
            return [Record(name, wire.CNAME, wire.encode_name(host), ttl)]
        except wire.BadName:
            return []
    return [Record(name, wire.A if len(one) == 4 else wire.AAAA, one, ttl) for one in addresses]


def lines(name: str, service: Service, ttl: int = TO_CREATE_TTL) -> list[str]:
    """The records in a zone file's form; none while the Service has no address."""
    addresses, host = targets(service)
    if host:
        return [f"{name}. {ttl} IN CNAME {host.removesuffix('.')}."]
    found = sorted(map(ipaddress.ip_address, addresses), key=lambda one: (one.version, one.packed))
    return [f"{name}. {ttl} IN {'A' if one.version == 4 else 'AAAA'} {one}" for one in found]


class Names:
    """Which Service has which name, kept current by `update`."""

    def __init__(self, zones: Zones) -> None:
        self.zones = zones
        self._asked: dict[Key, list[str]] = {}
        self._claims: dict[str, dict[Key, str]] = {}  # name -> who asks for it -> since when

    def update(self, key: Key, service: Service | None) -> list[str]:
        """Let `service` ask for what it asks for now (None: it is gone); the names to look at again."""
        before = self._asked.pop(key, [])
        wanted = service is not None and service.spec.type == "LoadBalancer"
        after = [name for name in asked(service) if encoded(name)] if wanted and service is not None else []
        if after and service is not None:
            self._asked[key] = after
            for name in after:
                self._claims.setdefault(name, {})[key] = service.metadata.creation_timestamp or ""
        for name in before:
            if name not in after:
                del self._claims[name][key]
                if not self._claims[name]:
                    del self._claims[name]
        return list(dict.fromkeys((*before, *after)))

    def holder(self, name: str) -> Key | None:
        """The oldest Service that asks for the name; of the same age, the first by namespace and name."""
        claims = self._claims.get(name)
        return min(claims, key=lambda key: (claims[key], key)) if claims else None

    def claimants(self, name: str) -> list[Key]:
        return list(self._claims.get(name, ()))

    def served(self, name: str) -> bool:
        """Is the name in one of our public zones?"""
        zone = self.zones.of(encoded(name) or b"")
        return zone is not None and zone.kind == "public"

    def findings(self, service: Service) -> Iterator[Finding]:
        """What there is to say about the names that `service` asks for."""
        names = asked(service)
        if names and service.spec.type != "LoadBalancer":
            what = f"{PUBLIC_HOSTNAME} is for Services of type LoadBalancer; this one is {service.spec.type}"
            yield Finding(True, "HostnameIgnored", f"{what}: {', '.join(names)} is not served")
            return
        for name in names:
            yield from self._finding(name, service)

    def _finding(self, name: str, service: Service) -> Iterator[Finding]:
        wire_name = encoded(name)
        if wire_name is None:
            what = "expected a full DNS name such as shop.example.com or *.shop.example.com"
            yield Finding(True, "HostnameInvalid", f"{PUBLIC_HOSTNAME}: {name!r}: {what}")
            return
        zone = self.zones.of(wire_name)
        if zone is not None and zone.kind != "public":
            what = f"{name} is in {zone.text}, the cluster's own; expected a name of a public zone"
            yield Finding(True, "HostnameInvalid", what)
            return
        holder = self.holder(name)
        if holder is not None and holder != service.key:
            what = f"{name} belongs to {'/'.join(holder)}, which asked for it first; give one of them another name"
            yield Finding(True, "HostnameConflict", what)
            return
        found = lines(name, service, TO_CREATE_TTL)
        if not found:
            return
        if zone is None:
            create = "; ".join(found)
            yield Finding(False, "DNSRecordNeeded", f"create where the domain of {name} is hosted: {create}")
        elif wire_name == zone.name and targets(service)[1]:
            what = f"{name} is a zone's apex, where no CNAME can be, and the balancer has no address but a host name"
            yield Finding(True, "HostnameAtApex", f"{what}; use a name below it, such as www.{name}")
        else:
            yield Finding(False, "HostnameServed", "; ".join(found_line(line) for line in found))


def found_line(line: str) -> str:
    """NAME TYPE DATA of a zone file's line."""
    name, _, _, kind, data = line.split(" ", 4)
    return f"{name.removesuffix('.')} {kind} {data}"
