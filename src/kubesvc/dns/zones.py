"""The zones that are answered for, which of them a name is in, and what each has at its apex. Pure.

    kind      a name                       comes from
    cluster   web.shop.svc.cluster.local   Services and their slices; pods' search paths name the first of these zones
    public    shop.example.com             LoadBalancer Services that ask for the name
    reverse   5.1.244.10.in-addr.arpa      the addresses in the cluster's networks, both families

A name is in the zone with the longest suffix of it. Cluster zones are apart from each other and hold no public one, so
that none hides another's Services.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from kubesvc.dns import wire

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Kind = Literal["cluster", "public", "reverse"]


class BadZone(ValueError):
    """A zone that can't be answered for; the message names it and what was expected."""


class Zone(NamedTuple):
    name: bytes  # wire name, lower-case
    kind: Kind
    servers: tuple[bytes, ...]  # wire names of its name servers; the first is the primary
    contact: bytes

    @property
    def text(self) -> str:
        return wire.to_text(self.name).removesuffix(".")


class Zones:
    """Every zone. `clusters` are the cluster's, its own first. Raises BadZone."""

    def __init__(
        self,
        clusters: Sequence[str],
        *,
        public: Mapping[str, Sequence[str]] | None = None,
        networks: Iterable[Network] = (),
    ) -> None:
        """`public` maps a zone -> its name servers' names; none: the cluster's own."""
        names = [_encode(text) for text in clusters]
        self.clusters = tuple(_cluster(name) for name in names)
        own = self.clusters[0].servers
        publics = []
        for text, servers in (public or {}).items():
            name = _encode(text)
            theirs = tuple(_encode(server) for server in servers) or own
            publics.append(Zone(name, "public", theirs, wire.join([b"hostmaster"], name)))
        self.publics = tuple(publics)
        origins = dict.fromkeys(origin for network in networks for origin in reverse_origins(network))
        self.reverses = tuple(Zone(origin, "reverse", own, self.clusters[0].contact) for origin in origins)
        _check(self.clusters, self.publics)
        self._by_name = {zone.name: zone for zone in self}

    def __iter__(self) -> Iterator[Zone]:
        return iter((*self.clusters, *self.publics, *self.reverses))

    def at(self, name: bytes) -> Zone | None:
        """The zone with this apex, a lower-case wire name."""
        return self._by_name.get(name)

    def apex(self, name: bytes) -> bytes:
        """The apex of the zone that `name` is in; the cluster's own for a name in none."""
        own = self.clusters[0].name
        if name.endswith(own):  # nearly all of them
            return own
        zone = self.of(name)
        return zone.name if zone is not None else own

    def of(self, name: bytes) -> Zone | None:
        """The zone that the lower-case wire name `name` is in; None for what isn't a name, too."""
        if len(name) > 255:
            return None
        found = self._by_name
        while len(name) > 1:
            zone = found.get(name)
            if zone is not None:
                return zone
            if not 0 < name[0] < 64:
                return None
            name = name[1 + name[0] :]
        return None


def _encode(text: str) -> bytes:
    try:
        name = wire.encode_name(text)
    except wire.BadName as error:
        raise BadZone(f"zone {text!r}: {error}; expected a DNS name such as cluster.local") from error
    if len(name) < 2:
        raise BadZone(f"zone {text!r}: expected a DNS name such as cluster.local, not the root")
    return name


def _cluster(name: bytes) -> Zone:
    return Zone(name, "cluster", (wire.join([b"ns", b"dns"], name),), wire.join([b"hostmaster"], name))


def _check(clusters: Sequence[Zone], publics: Sequence[Zone]) -> None:
    for number, zone in enumerate(clusters):
        for other in (*clusters[:number], *clusters[number + 1 :], *publics):
            if wire.labels_over(other.name, zone.name) is not None:
                raise BadZone(
                    f"zone {other.text} lies in the cluster's zone {zone.text} and would hide its names: "
                    "give zones that are apart"
                )
    if len({zone.name for zone in publics}) < len(publics):
        raise BadZone("a public zone is given twice: " + ", ".join(zone.text for zone in publics))


def reverse_origins(network: Network) -> list[bytes]:
    """The zones that hold the addresses of `network`: whole octets (IPv4) or hexadecimal digits (IPv6), as delegated.

    10.96.0.0/12 is the sixteen zones 96.10.in-addr.arpa to 111.10.in-addr.arpa.
    """
    step = 8 if network.version == 4 else 4
    length = max(step, -(-network.prefixlen // step) * step)
    digits = length // step
    found = []
    for part in network.subnets(new_prefix=length):
        whole = wire.reverse_name(part.network_address.packed)
        for _ in range(network.max_prefixlen // step - digits):
            whole = whole[1 + whole[0] :]
        found.append(whole)
    return found
