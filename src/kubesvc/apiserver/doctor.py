"""Whether every claimed address and port belongs to exactly one Service, and every one that a Service holds is claimed.

A Service and its claims are written in one commit, so nothing repairs them later; this is how that is verified, over
everything in a store at one moment:

    Service ── holds ──► 10.96.0.7   ◄── IPAddress 10.96.0.7, parentRef ──► the same Service
    Service ── holds ──► 30080       ◄── claims/nodeport/30080 = uid    ──► the same Service

IPAddresses that somebody else manages, and says so by another label, are none of our business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network

import msgspec

from kubesvc.api import labels
from kubesvc.api.meta import JSON
from kubesvc.api.registry import IP_ADDRESS, SERVICE, SERVICE_CIDR
from kubesvc.apiserver import stored
from kubesvc.apiserver.admission import service_spec as ask
from kubesvc.store.protocol import Versioned, Write

NODE_PORTS = "claims/nodeport/"
ADDRESSES = stored.collection(IP_ADDRESS) + "-/"

_ANEW = "delete the Service and create it again"


class Finding(msgspec.Struct, frozen=True):
    """What is wrong, what to do about it, and the writes that `doctor --repair` makes of that (none: a person must)."""

    what: str
    remedy: str
    repair: tuple[Write, ...] = ()


class _World(msgspec.Struct):
    services: dict[str, JSON] = {}  # namespace/name -> Service
    addresses: dict[str, Versioned] = {}  # address -> its IPAddress
    ports: dict[str, Versioned] = {}  # number -> its claim
    ranges: list[str] = []  # CIDRs
    holders: dict[str, list[str]] = {}  # address or port -> namespace/name of its Services


def examine(items: Iterable[Versioned]) -> list[Finding]:
    """What is wrong with the claims among `items`, all that a store holds."""
    world = _read(items)
    return [*_doubled(world), *_leaked_addresses(world), *_leaked_ports(world), *_unclaimed(world), *_outside(world)]


def _read(items: Iterable[Versioned]) -> _World:
    world = _World()
    services, ranges = stored.collection(SERVICE), stored.collection(SERVICE_CIDR)
    for item in items:
        if item.key.startswith(services):
            world.services["/".join(stored.name_of(item.key))] = stored.tree_of(item)
        elif item.key.startswith(ADDRESSES):
            world.addresses[item.key.removeprefix(ADDRESSES)] = item
        elif item.key.startswith(NODE_PORTS):
            world.ports[item.key.removeprefix(NODE_PORTS)] = item
        elif item.key.startswith(ranges):
            world.ranges += stored.tree_of(item)["spec"]["cidrs"]
    for name, service in world.services.items():
        for held in dict.fromkeys([*_addresses(service), *_ports(service)]):
            world.holders.setdefault(held, []).append(name)
    return world


def _addresses(service: JSON) -> list[str]:
    return [ask.canonical(address) for address in ask.held_addresses(ask.spec_of(service))]


def _ports(service: JSON) -> list[str]:
    return [str(port) for port in ask.held_node_ports(ask.spec_of(service))]


def _doubled(world: _World) -> Iterator[Finding]:
    for held, names in world.holders.items():
        if len(names) > 1:
            yield Finding(
                f"{_named(held)} is held by {len(names)} Services: {', '.join(sorted(names))}", f"{_ANEW}, but one"
            )


def _named(held: str) -> str:
    return f"node port {held}" if held.isdigit() else f"address {held}"


def _leaked_addresses(world: _World) -> Iterator[Finding]:
    for address, item in world.addresses.items():
        claim = stored.tree_of(item)
        if (claim["metadata"].get("labels") or {}).get(labels.IP_MANAGED_BY) != labels.IP_ALLOCATOR:
            continue
        parent = (claim.get("spec") or {}).get("parentRef") or {}
        name = f"{parent.get('namespace', '')}/{parent.get('name', '')}"
        holders = world.holders.get(address, [])
        if name in holders:
            continue
        if holders:
            yield Finding(f"address {address} is claimed for {name}, but {holders[0]} holds it", _ANEW)
        else:
            yield Finding(
                f"address {address} is claimed for {name}, which {_lacks(world, name)}: it can't be given out",
                f"kubectl delete ipaddress {address}",
                (Write(item.key, None, item.revision),),
            )


def _lacks(world: _World, name: str) -> str:
    return "doesn't hold it" if name in world.services else "is not there"


def _leaked_ports(world: _World) -> Iterator[Finding]:
    names = {service["metadata"]["uid"]: name for name, service in world.services.items()}
    for port, item in world.ports.items():
        uid = msgspec.json.decode(item.value)
        holders = world.holders.get(port, [])
        if names.get(uid) in holders:
            continue
        if holders:
            yield Finding(f"node port {port} is claimed by uid {uid}, but {holders[0]} holds it", _ANEW)
        else:
            who = f"{names[uid]}, which doesn't hold it" if uid in names else f"uid {uid}, which is not there"
            yield Finding(
                f"node port {port} is claimed by {who}: it can't be given out",
                "stop the box, then `kubesvc doctor --repair`",
                (Write(item.key, None, item.revision),),
            )


def _unclaimed(world: _World) -> Iterator[Finding]:
    for held, names in world.holders.items():
        if held not in (world.ports if held.isdigit() else world.addresses):
            yield Finding(f"{_named(held)} is held by {names[0]}, but not claimed: another Service may get it", _ANEW)


def _outside(world: _World) -> Iterator[Finding]:
    networks = [ip_network(cidr) for cidr in world.ranges]
    for held, names in world.holders.items():
        if not held.isdigit() and not any(ip_address(held) in network for network in networks):
            yield Finding(
                f"address {held} of {names[0]} is in no ServiceCIDR",
                f"create a ServiceCIDR that covers it, or {_ANEW}",
            )


def outside_range(items: Iterable[Versioned], first: int, last: int) -> list[str]:
    """The node ports that Services hold outside the range, as "30080 of default/web": they had them before the range
    was what it is, and keep them. No finding: nothing is wrong with that."""
    holders = _read(items).holders
    ports = sorted((int(held), name) for held, names in holders.items() if held.isdigit() for name in names)
    return [f"{port} of {name}" for port, name in ports if not first <= port <= last]


def summary(items: Sequence[Versioned]) -> str:
    """What there was to look at, in a line."""
    world = _read(items)
    return f"{len(world.services)} Services, {len(world.addresses)} addresses, {len(world.ports)} node ports"
