"""The load balancer that a Service should have, from what it asks and the world it is in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.aws import names
from kubesvc.loadbalancer.providers.aws.model import FoundBalancer, Group, Listener, Permission, Target, Wanted
from kubesvc.loadbalancer.providers.aws.places import Subnet, places_of
from kubesvc.loadbalancer.providers.aws.wishes import PROXY_PROTOCOL, Port, Wish, matches

_PROVIDER_ID = re.compile(r"aws://[^/]*/[^/]+/(i-[0-9a-z]+)")


class World(msgspec.Struct, frozen=True):
    """What there is beside the load balancer itself."""

    cluster: str
    vpc: str
    subnets: tuple[Subnet, ...]
    nodes: tuple[Node, ...]
    slices: tuple[EndpointSlice, ...]
    security_groups: tuple[str, ...]  # those of the annotation, by id, and the backend group


def instance_of(node: Node) -> str:
    """The id of the instance a Node is; "" when it is none of AWS."""
    found = _PROVIDER_ID.fullmatch(node.spec.provider_id)
    return found[1] if found else ""


def wanted_of(service: Service, wish: Wish, world: World, found: FoundBalancer | None) -> Wanted:
    """Raises Refused: what is asked can't be had, or not of the load balancer there is."""
    scheme = wish.scheme or (found.scheme if found else "internal")
    places = places_of(
        wish,
        scheme,
        world.subnets,
        world.cluster,
        found.places if found else (),
        service.status.load_balancer,
    )
    groups = [_group(service, wish, port, world) for port in wish.ports]
    wanted = Wanted(
        name=found.name if found else wish.name or names.name(world.cluster, service),
        own_group_name=names.name(world.cluster, service, names.FRONTEND),
        scheme=scheme,
        vpc=world.vpc,
        ip_address_type=wish.ip_address_type,
        places=places,
        permissions=_permissions(wish) if not (wish.security_groups or wish.without_security_group) else None,
        security_groups=() if wish.without_security_group else world.security_groups,
        attributes=wish.attributes,
        groups={group.key: group for group in groups},
        listeners={
            port.service_port.port: _listener(wish, port, group) for port, group in zip(wish.ports, groups, strict=True)
        },
        tags=names.tags(world.cluster, service, wish.tags),
    )
    if found is not None:
        _check_possible(service, wanted, found)
    return wanted


def _permissions(wish: Wish) -> frozenset[Permission]:
    sources = (*wish.source_ranges, *wish.prefix_lists)
    rules = {
        Permission(protocol, port.service_port.port, port.service_port.port, source)
        for port in wish.ports
        for protocol in (
            ("tcp", "udp") if port.protocol == "TCP_UDP" else ("udp",) if port.protocol == "UDP" else ("tcp",)
        )
        for source in sources
    }
    if wish.icmp:
        rules |= {Permission("icmp", 3, 4, source) for source in sources if ":" not in source}
    return frozenset(rules)


def _group(service: Service, wish: Wish, port: Port, world: World) -> Group:
    number = port.service_port.port
    six = service.spec.ip_families[:1] == ["IPv6"]
    family = "ipv6" if six else "ipv4"
    if six and wish.ip_address_type != "dualstack":
        message = "its first IP family is IPv6, which needs the annotation ip-address-type: dualstack"
        raise Refused("FamilyNotServed", message, service.status.load_balancer)
    key = f"{number}-{port.target_protocol}-{wish.target_type}-{family}"
    behind = port.service_port.node_port
    if wish.target_type == "ip":
        behind = port.service_port.target_port if isinstance(port.service_port.target_port, int) else 1
        behind = behind or number
    return Group(
        key=key,
        name=names.name(world.cluster, service, key),
        protocol=port.target_protocol,
        port=behind,
        target_type=wish.target_type,
        ip_address_type=family,
        health=wish.health,
        attributes=wish.group_attributes
        | ({PROXY_PROTOCOL: "true"} if port.proxy_protocol else {})
        | ({} if PROXY_PROTOCOL in wish.group_attributes or port.proxy_protocol else {PROXY_PROTOCOL: "false"}),
        targets=_instances(wish, port, world.nodes)
        if wish.target_type == "instance"
        else _pods(port, world.slices, "IPv6" if six else "IPv4"),
    )


def _instances(wish: Wish, port: Port, nodes: Iterable[Node]) -> frozenset[Target]:
    chosen = [node for node in nodes if matches(node.metadata.labels, wish.node_labels)]
    return frozenset((instance_of(node), port.service_port.node_port) for node in chosen if instance_of(node))


def _pods(port: Port, slices: Iterable[EndpointSlice], family: str) -> frozenset[Target]:
    """Ready pods: one that terminates is taken out at once, and drains as the target group says."""
    return frozenset(
        (endpoint.addresses[0], found.port)
        for one in slices
        if one.address_type == family
        for found in one.ports or ()
        if found.port and (found.name or "") == port.service_port.name
        for endpoint in one.endpoints
        if endpoint.ready and endpoint.addresses
    )


def _listener(wish: Wish, port: Port, group: Group) -> Listener:
    over_tls = port.protocol == "TLS"
    return Listener(
        port.service_port.port,
        port.protocol,
        group.key,
        wish.certificates if over_tls else (),
        wish.policy if over_tls else "",
        wish.alpn if over_tls else "None",
        port.attributes,
    )


def _check_possible(service: Service, wanted: Wanted, found: FoundBalancer) -> None:
    """What AWS can't change of a load balancer. It keeps serving as it is: making it anew would lose its name and
    addresses, so that is left to people."""
    remedy = "take the change back, or delete the Service and create it again for a load balancer with another name"
    shown = service.status.load_balancer

    def refuse(what: str, now: str, then: str) -> Refused:
        message = f"{what} of load balancer {found.name} can't be changed from {now or 'none'} to {then or 'none'}"
        return Refused("CannotBeChanged", f"{message}: {remedy}", shown)

    if wanted.scheme != found.scheme:
        raise refuse("the scheme", found.scheme, wanted.scheme)
    has, wants = bool(found.security_groups), wanted.permissions is not None or bool(wanted.security_groups)
    if has != wants:
        raise refuse("the presence of security groups", str(has).lower(), str(wants).lower())
    for place in wanted.places:
        before = found.places.get(place.subnet)
        for what in ("allocation", "private", "ipv6") if before else ():
            if (then := getattr(place, what)) and then != (now := getattr(before, what)):
                raise refuse(f"the address in {place.subnet}", now, then)


def node_rules(wish: Wish, wanted: Wanted, node_ports: tuple[int, int]) -> frozenset[tuple[str, int, int]]:
    """(protocol, first port, last port) that targets must let in from the load balancer. Node ports are opened as one
    range, so that the number of rules doesn't grow with Services: a security group has 60."""
    rules: set[tuple[str, int, int]] = set()
    for group in wanted.groups.values():
        ports = {number for _, number in group.targets} or {group.port}
        protocols = ("tcp", "udp") if group.protocol == "TCP_UDP" else ("udp",) if group.protocol == "UDP" else ("tcp",)
        needed = {(protocol, number) for protocol in protocols for number in ports}
        needed |= {
            ("tcp", number if group.health.port == "traffic-port" else int(group.health.port)) for number in ports
        }
        for protocol, number in needed:
            inside = wanted_range(number, node_ports) if wish.target_type == "instance" else (number, number)
            rules.add((protocol, *inside))
    return frozenset(rules)


def wanted_range(number: int, node_ports: tuple[int, int]) -> tuple[int, int]:
    return node_ports if node_ports[0] <= number <= node_ports[1] else (number, number)


def nodes_behind(wish: Wish, world: World) -> Sequence[str]:
    """The instances that targets are on, whose security groups must let the load balancer in."""
    if wish.target_type == "instance":
        chosen = [node for node in world.nodes if matches(node.metadata.labels, wish.node_labels)]
    else:
        on = {e.node_name for one in world.slices for e in one.endpoints if e.ready}
        chosen = [node for node in world.nodes if node.name in on]
    return sorted(filter(None, map(instance_of, chosen)))
