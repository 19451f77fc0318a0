"""Which endpoints a connection may reach from this node: readiness, topology, and where both give out. Pure.

    cluster set   ready, narrowed by hints; none: serving and terminating, anywhere
    local set     ready on this node;       none: serving and terminating, on this node

A slice is parsed once, when it changes, into `Candidates`: a byte of flags and an address for each endpoint. Follows
KEP-1669 (terminating endpoints), KEP-2433 and KEP-3015 (hints).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from kubesvc.api.balance import read_weights
from kubesvc.api.discovery import Endpoint, EndpointSlice
from kubesvc.api.labels import WEIGHTS
from kubesvc.proxy.layout import PROTOCOLS, pack, port_data

READY, DRAINING, LOCAL = 1, 2, 4  # draining: serving and terminating
NODE_HINT, FOR_NODE, ZONE_HINT, FOR_ZONE = 8, 16, 32, 64
_NO_WEIGHTS: Mapping[bytes, int] = {}
_PLAIN = {READY, READY | LOCAL}  # what nearly every slice is made of


class Locality(msgspec.Struct, frozen=True):
    """Where this proxy is."""

    node: str
    zone: str = ""


class Candidates(msgspec.Struct, frozen=True):
    """A slice as this node sees it. `ports` maps (name, protocol number) -> port."""

    length: int  # of an address: 4 or 16
    ports: dict[tuple[str, int], int]
    endpoints: tuple[tuple[int, bytes], ...]  # flags, address
    weights: Mapping[bytes, int]  # address -> weight, where it isn't 1


class Choice(msgspec.Struct, frozen=True):
    """Both sets, packed with their ports."""

    cluster: tuple[bytes, ...]
    local: tuple[bytes, ...]


def parse(found: EndpointSlice, here: Locality) -> Candidates:
    """What matters of a slice. Endpoints with an address that is none are left out, as are ports without a number."""
    length = {"IPv4": 4, "IPv6": 16}.get(found.address_type, 0)
    ports = {
        (port.name or "", PROTOCOLS[port.protocol or "TCP"]): port.port
        for port in found.ports or ()
        if port.port and (port.protocol or "TCP") in PROTOCOLS
    }
    endpoints: list[tuple[int, bytes]] = []
    for endpoint in found.endpoints if length and ports else ():
        flags = _flags(endpoint, here)
        if flags & (READY | DRAINING) and endpoint.addresses:
            try:
                address = pack(endpoint.addresses[0])
            except ValueError:
                continue
            if len(address) == length:
                endpoints.append((flags, address))
    written = found.metadata.annotations.get(WEIGHTS)
    return Candidates(length, ports, tuple(endpoints), _weights(written) if written else _NO_WEIGHTS)


def _weights(written: str) -> dict[bytes, int]:
    """What isn't an address is nobody's weight."""
    weights: dict[bytes, int] = {}
    for address, weight in read_weights(written).items():
        with suppress(ValueError):
            weights[pack(address)] = weight
    return weights


def _flags(endpoint: Endpoint, here: Locality) -> int:
    conditions = endpoint.conditions
    if conditions.ready and not conditions.terminating and endpoint.hints is None:
        return READY | LOCAL if endpoint.node_name == here.node else READY
    flags = 0 if conditions.ready is False else READY
    if conditions.terminating and conditions.serving is not False:
        flags |= DRAINING
    if endpoint.node_name == here.node:
        flags |= LOCAL
    hints = endpoint.hints
    if hints is not None:
        if hints.for_nodes:
            flags |= NODE_HINT | (FOR_NODE if any(n.name == here.node for n in hints.for_nodes) else 0)
        if hints.for_zones:
            flags |= ZONE_HINT | (FOR_ZONE if any(z.name == here.zone for z in hints.for_zones) else 0)
    return flags


def choose(slices: Iterable[Candidates], length: int, port: tuple[str, int]) -> Choice:
    """The endpoints of one service port in one family. An endpoint in two slices counts once, ready if it is in one."""
    flags_of: dict[bytes, int] = {}
    for candidates in slices:
        number = candidates.ports.get(port) if candidates.length == length else None
        if number is None:
            continue
        ending = port_data(number)
        for flags, address in candidates.endpoints:
            endpoint = address + ending
            known = flags_of.get(endpoint)
            if known is None or (flags & READY, flags) > (known & READY, known):  # whichever slice comes first
                flags_of[endpoint] = flags
    if _PLAIN.issuperset(flags_of.values()):
        return Choice(tuple(flags_of), tuple([e for e, f in flags_of.items() if f & LOCAL]))
    ready = [(e, f) for e, f in flags_of.items() if f & READY]
    cluster = _narrow(ready) or [e for e, f in flags_of.items() if f & DRAINING]
    local = [e for e, f in ready if f & LOCAL]
    local = local or [e for e, f in flags_of.items() if f & DRAINING and f & LOCAL]
    return Choice(tuple(cluster), tuple(local))


def _narrow(ready: Sequence[tuple[bytes, int]]) -> list[bytes]:
    """Topology: hints count only when every ready endpoint has one and at least one is for here; nodes before zones."""
    for hinted, for_here in ((NODE_HINT, FOR_NODE), (ZONE_HINT, FOR_ZONE)):
        if ready and all(f & hinted for _, f in ready):
            here = [e for e, f in ready if f & for_here]
            if here:
                return here
    return [e for e, _ in ready]
