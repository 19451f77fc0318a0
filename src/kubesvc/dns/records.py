"""What a Service means in DNS: a Service and its slices -> records. Pure.

    kind of Service   name                         records
    ClusterIP …       svc.ns.svc.ZONE              A/AAAA of its cluster IPs, SRV of all its ports
                      _port._proto.svc.ns.svc      SRV -> svc.ns.svc
                      host.svc.ns.svc              A/AAAA of that ready endpoint, SRV of its ports
    headless          svc.ns.svc.ZONE              A/AAAA of every ready endpoint, SRV of all ports
                      _port._proto.svc.ns.svc      SRV -> host.svc.ns.svc, one an endpoint
                      host.svc.ns.svc              A/AAAA of that ready endpoint, SRV of its ports
    ExternalName      svc.ns.svc.ZONE              CNAME; a name that is an address, or no name at all: nothing
    all               *.in-addr.arpa, *.ip6.arpa    PTR of cluster IPs to svc, of ready endpoints to host

`host` is the endpoint's hostname, else its address with dashes. A record's data is wire data, uncompressed, so that
an answer is made by joining bytes. Follows the Kubernetes DNS specification 1.1.0, and CoreDNS where that is silent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.endpoints import cluster_ips, is_headless
from kubesvc.dns import wire
from kubesvc.dns.zones import Zone, Zones

KUBE_DNS = ("kube-system", "kube-dns")
"""The Service that fronts every node's DNS; `ns.dns.ZONE`, the zone's name server, has its addresses."""
SPEC_VERSION = b"1.1.0"
SPEC_VERSION_TTL = 28800  # seconds, what the specification's own example has

_OCTETS = {str(number): number for number in range(256)}


class Record(NamedTuple):
    name: bytes  # wire name, lower-case
    type: int
    data: bytes  # wire data, uncompressed
    ttl: int  # seconds


class _Endpoint(NamedTuple):
    name: bytes  # host.svc.ns.svc.ZONE
    address: bytes  # packed
    ports: tuple[tuple[str, str, int], ...]  # (name, protocol, port)


def apex_records(zone: Zone, ttl: int, serial: int) -> list[Record]:
    """A zone's own: SOA and NS at the apex, and in the cluster's the specification's version."""
    found = [Record(zone.name, wire.SOA, wire.soa(zone.servers[0], zone.contact, serial, ttl), ttl)]
    found += [Record(zone.name, wire.NS, server, ttl) for server in zone.servers]
    if zone.kind == "cluster":
        version = wire.join([b"dns-version"], zone.name)
        found.append(Record(version, wire.TXT, wire.txt(SPEC_VERSION), SPEC_VERSION_TTL))
    return found


def records_in(zones: Zones, service: Service, slices: Sequence[EndpointSlice], ttl: int) -> list[Record]:
    """Every record of one Service in the cluster's zones; an address has one name, the cluster's own zone's."""
    own, *others = zones.clusters
    found = service_records(service, slices, own.name, ttl)
    for zone in others:
        found += [one for one in service_records(service, slices, zone.name, ttl) if one.type != wire.PTR]
    return found


def service_records(service: Service, slices: Iterable[EndpointSlice], zone: bytes, ttl: int) -> list[Record]:
    """Every record of one Service; none when its name resolves to nothing. `zone` is a lower-case wire name."""
    try:
        name = wire.join([service.name.encode(), service.namespace.encode(), b"svc"], zone)
    except wire.BadName:  # legal for an object, too long for DNS
        return []
    if service.spec.type == "ExternalName":
        return _alias(service, name, ttl)
    endpoints = list(_endpoints(slices, name))
    if is_headless(service):
        found = _headless(name, endpoints, ttl)
    else:
        found = _cluster(service, name, ttl)
        if not found:
            return []
    if service.key == KUBE_DNS:
        server = wire.join([b"ns", b"dns"], zone)
        found += [r._replace(name=server) for r in found if r.name == name and r.type in (wire.A, wire.AAAA)]
    for endpoint in endpoints:
        found.append(_address(endpoint.name, endpoint.address, ttl))
        own = [("", protocol, port, endpoint.name) for _, protocol, port in endpoint.ports]
        found += _services(endpoint.name, own, ttl)
        found.append(Record(wire.reverse_name(endpoint.address), wire.PTR, endpoint.name, ttl))
    return list(dict.fromkeys(found))


def _address(name: bytes, packed: bytes, ttl: int) -> Record:
    return Record(name, wire.A if len(packed) == 4 else wire.AAAA, packed, ttl)


def _packed(text: str) -> bytes | None:
    try:  # ten times as fast as ipaddress, which has the last word
        a, b, c, d = text.split(".")
        return bytes((_OCTETS[a], _OCTETS[b], _OCTETS[c], _OCTETS[d]))
    except (ValueError, KeyError):
        pass
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        return None


def _alias(service: Service, name: bytes, ttl: int) -> list[Record]:
    target = service.spec.external_name
    if _packed(target.removesuffix(".")) is not None:
        return []
    try:
        encoded = wire.encode_name(target)
    except wire.BadName:
        return []
    return [Record(name, wire.CNAME, encoded, ttl)] if len(encoded) > 1 else []


def _endpoints(slices: Iterable[EndpointSlice], name: bytes) -> Iterator[_Endpoint]:
    """The ready endpoints, in the order of their addresses, so that answers don't depend on the slices' packing."""
    found = {}
    for piece in slices:
        ports = tuple((p.name or "", p.protocol or "TCP", p.port) for p in piece.ports or () if p.port)
        for endpoint in piece.endpoints:
            packed = _packed(endpoint.addresses[0]) if endpoint.addresses and endpoint.ready else None
            if packed is None:
                continue
            host = endpoint.hostname or dashed(packed)
            try:
                entry = _Endpoint(wire.join([host.lower().encode()], name), packed, ports)
            except wire.BadName:
                continue
            found[packed, host, ports] = entry
    yield from (found[key] for key in sorted(found))


def dashed(packed: bytes) -> str:
    """An address as a label: 10.244.1.5 -> 10-244-1-5, fd00::5 -> fd00--5."""
    if len(packed) == 4:
        return "-".join(map(str, packed))
    return str(ipaddress.ip_address(packed)).replace(":", "-")


def undashed(label: bytes) -> bytes | None:
    """The packed address that a label such as 10-244-1-5 or fd00--5 stands for, or None."""
    text = label.decode("ascii", "replace")
    return _packed(text.replace("-", ".")) if text.count("-") == 3 and "--" not in text else _packed_v6(text)


def _packed_v6(text: str) -> bytes | None:
    return _packed(text.replace("-", ":")) if text.isascii() and not set(".:%") & set(text) else None


def _cluster(service: Service, name: bytes, ttl: int) -> list[Record]:
    addresses = [packed for packed in map(_packed, cluster_ips(service)) if packed is not None]
    if not addresses:
        return []
    found = [_address(name, packed, ttl) for packed in addresses]
    found += [Record(wire.reverse_name(packed), wire.PTR, name, ttl) for packed in addresses]
    ports = [(p.name, p.protocol, p.port, name) for p in service.spec.ports]
    return found + list(_services(name, ports, ttl))


def _headless(name: bytes, endpoints: Sequence[_Endpoint], ttl: int) -> list[Record]:
    ports = [(*port, endpoint.name) for endpoint in endpoints for port in endpoint.ports]
    return [_address(name, e.address, ttl) for e in endpoints] + list(_services(name, ports, ttl))


def _services(name: bytes, ports: Sequence[tuple[str, str, int, bytes]], ttl: int) -> Iterator[Record]:
    """SRV records: (port name, protocol, port, target) under `name` and, where named, under _port._proto.name."""
    # owner -> (port, target), each once, in order
    targets: dict[bytes, dict[tuple[int, bytes], None]] = {}
    for port_name, protocol, port, target in ports:
        targets.setdefault(name, {})[port, target] = None
        if port_name:
            try:
                owner = wire.join([b"_" + port_name.lower().encode(), b"_" + protocol.lower().encode()], name)
            except wire.BadName:
                continue
            targets.setdefault(owner, {})[port, target] = None
    for owner, ones in targets.items():
        weight = max(1, 100 // len(ones))
        for port, target in ones:
            yield Record(owner, wire.SRV, wire.srv(weight, port, target), ttl)
