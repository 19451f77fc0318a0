"""The calls that make what is there what is wanted. Pure: it makes none, and says how each changes what is known.

    while calls := next_calls(wanted, found): make them, in order

A step that needs the identity of something yet to be made waits for the next round. First what adds, then what
changes, then what takes away: a connection always finds a listener, and a listener always a target group with targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from kubesvc.loadbalancer.providers.aws import names, permissions
from kubesvc.loadbalancer.providers.aws.model import (
    Found,
    FoundBalancer,
    FoundGroup,
    FoundListener,
    FoundSecurityGroup,
    Group,
    Health,
    Listener,
    Place,
    Wanted,
)

T = TypeVar("T")
CHUNK = 100  # targets of one call


class Call(msgspec.Struct, frozen=True):
    """`operation` is boto3's method of client `api` (elbv2, ec2); `then` puts its answer into what is known."""

    api: str
    operation: str
    arguments: dict[str, Any]
    then: Callable[[Any], object]


def next_calls(wanted: Wanted, found: Found) -> list[Call]:
    """What can be done now; empty when all is as wanted."""
    calls = [*_security_group(wanted, found)]
    if wanted.permissions is None or found.security_group is not None:
        calls += _balancer(wanted, found)
    calls += _groups(wanted, found)
    if found.balancer is not None and all(found.group(key) for key in wanted.groups):
        calls += _listeners(wanted, found, found.balancer.arn)
    return calls or [*_removals(wanted, found)]


def deletion(found: Found) -> list[Call]:
    """All of it goes: listeners with their load balancer, then target groups, then the security group."""
    calls: list[Call] = []
    if (balancer := found.balancer) is not None:

        def gone(_: Any) -> None:
            found.balancer, found.listeners = None, {}

        calls.append(Call("elbv2", "delete_load_balancer", {"LoadBalancerArn": balancer.arn}, gone))
    calls += [_delete_group(found, group) for group in found.groups.values()]
    if found.security_group is not None:
        calls.append(_delete_security_group(found))
    return calls


# ── security group ───────────────────────────────────────────────────────────────────────────────────────────────────


def _security_group(wanted: Wanted, found: Found) -> Iterator[Call]:
    if wanted.permissions is None:
        return
    own = found.security_group
    tags = wanted.tags | {names.RESOURCE: names.FRONTEND}
    if own is None:

        def made(answer: Any) -> None:
            found.security_group = FoundSecurityGroup(answer["GroupId"], tags=tags)

        yield Call(
            "ec2",
            "create_security_group",
            {
                "GroupName": wanted.own_group_name,
                "Description": f"kubesvc: who may connect to Service {tags[names.SERVICE]}",
                "VpcId": wanted.vpc,
                "TagSpecifications": [{"ResourceType": "security-group", "Tags": as_tags(tags)}],
            },
            made,
        )
        return
    known = own
    if missing := wanted.permissions - known.permissions:
        yield Call(
            "ec2",
            "authorize_security_group_ingress",
            {"GroupId": known.id, "IpPermissions": permissions.to_wire(missing)},
            lambda _: known.permissions.update(missing),
        )
    if stale := known.permissions - wanted.permissions:
        yield Call(
            "ec2",
            "revoke_security_group_ingress",
            {"GroupId": known.id, "IpPermissions": permissions.to_wire(stale)},
            lambda _: known.permissions.difference_update(stale),
        )
    yield from _tags("ec2", known.id, known.tags, tags)


def _delete_security_group(found: Found) -> Call:
    assert found.security_group is not None

    def gone(_: Any) -> None:
        found.security_group = None

    return Call("ec2", "delete_security_group", {"GroupId": found.security_group.id}, gone)


# ── load balancer ────────────────────────────────────────────────────────────────────────────────────────────────────


def _balancer(wanted: Wanted, found: Found) -> Iterator[Call]:
    tags = wanted.tags | {names.RESOURCE: names.BALANCER}
    own = (found.security_group.id,) if wanted.permissions is not None and found.security_group else ()
    groups = (*own, *wanted.security_groups)
    known = found.balancer
    if known is None:
        yield _create_balancer(wanted, found, tags, groups)
        return
    arn = {"LoadBalancerArn": known.arn}
    if set(groups) != set(known.security_groups):

        def grouped(_: Any) -> None:
            known.security_groups = groups

        yield Call("elbv2", "set_security_groups", arn | {"SecurityGroups": list(groups)}, grouped)
    places = {place.subnet: place for place in wanted.places}
    if set(places) != set(known.places):

        def moved(_: Any) -> None:
            known.places = places

        yield Call("elbv2", "set_subnets", arn | _mappings(wanted.places), moved)
    if wanted.ip_address_type != known.ip_address_type:

        def typed(_: Any) -> None:
            known.ip_address_type = wanted.ip_address_type

        yield Call("elbv2", "set_ip_address_type", arn | {"IpAddressType": wanted.ip_address_type}, typed)
    yield from _attributes("modify_load_balancer_attributes", arn, known.attributes, wanted.attributes)
    yield from _tags("elbv2", known.arn, known.tags, tags)


def _create_balancer(wanted: Wanted, found: Found, tags: dict[str, str], groups: tuple[str, ...]) -> Call:
    def made(answer: Any) -> None:
        one = answer["LoadBalancers"][0]
        places = {place.subnet: place for place in wanted.places}
        found.balancer = FoundBalancer(
            one["LoadBalancerArn"], wanted.name, one["DNSName"], wanted.scheme, wanted.ip_address_type, places, groups,
            tags=tags,
        )  # fmt: skip

    return Call(
        "elbv2",
        "create_load_balancer",
        {
            "Name": wanted.name,
            "Type": "network",
            "Scheme": wanted.scheme,
            "IpAddressType": wanted.ip_address_type,
            "Tags": as_tags(tags),
        }
        | _mappings(wanted.places)
        | ({"SecurityGroups": list(groups)} if groups else {}),
        made,
    )


def _mappings(places: Iterable[Place]) -> dict[str, Any]:
    keys = {"SubnetId": "subnet", "AllocationId": "allocation", "PrivateIPv4Address": "private", "IPv6Address": "ipv6"}
    return {
        "SubnetMappings": [
            {key: getattr(place, name) for key, name in keys.items() if getattr(place, name)} for place in places
        ]
    }


# ── target groups ────────────────────────────────────────────────────────────────────────────────────────────────────


def _groups(wanted: Wanted, found: Found) -> Iterator[Call]:
    for group in wanted.groups.values():
        tags = wanted.tags | {names.RESOURCE: group.key}
        known = found.group(group.key)
        if known is None:
            yield _create_group(wanted, found, group, tags)
        else:
            yield from _change_group(group, known)
            yield from _tags("elbv2", known.arn, known.tags, tags)


def _create_group(wanted: Wanted, found: Found, group: Group, tags: dict[str, str]) -> Call:
    def made(answer: Any) -> None:
        arn = answer["TargetGroups"][0]["TargetGroupArn"]
        found.groups[arn] = FoundGroup(arn, group.key, group.health, tags=tags)

    arguments = {
        "Name": group.name,
        "Protocol": group.protocol,
        "Port": group.port,
        "VpcId": wanted.vpc,
        "TargetType": group.target_type,
        "IpAddressType": group.ip_address_type,
        "Tags": as_tags(tags),
    }
    return Call("elbv2", "create_target_group", arguments | _health(group.health), made)


def _change_group(group: Group, known: FoundGroup) -> Iterator[Call]:
    arn = {"TargetGroupArn": known.arn}
    if group.health != known.health:

        def checked(_: Any) -> None:
            known.health = group.health

        yield Call("elbv2", "modify_target_group", arn | _health(group.health), checked)
    yield from _attributes("modify_target_group_attributes", arn, known.attributes, group.attributes)
    for some in _chunks(sorted(group.targets - known.targets)):
        yield Call("elbv2", "register_targets", arn | _targets(some), _with(known.targets.update, some))
    for some in _chunks(sorted(known.targets - group.targets)):
        yield Call("elbv2", "deregister_targets", arn | _targets(some), _with(known.targets.difference_update, some))


def _delete_group(found: Found, group: FoundGroup) -> Call:
    return Call(
        "elbv2", "delete_target_group", {"TargetGroupArn": group.arn}, lambda _: found.groups.pop(group.arn, None)
    )


def _health(health: Health) -> dict[str, Any]:
    return {
        "HealthCheckProtocol": health.protocol,
        "HealthCheckPort": health.port,
        "HealthCheckIntervalSeconds": health.interval,
        "HealthCheckTimeoutSeconds": health.timeout,
        "HealthyThresholdCount": health.healthy,
        "UnhealthyThresholdCount": health.unhealthy,
    } | ({"HealthCheckPath": health.path, "Matcher": {"HttpCode": health.codes}} if health.path else {})


def _targets(some: Iterable[tuple[str, int]]) -> dict[str, Any]:
    return {"Targets": [{"Id": identity, "Port": port} for identity, port in some]}


def _chunks(targets: list[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    return (targets[n : n + CHUNK] for n in range(0, len(targets), CHUNK))


# ── listeners ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _listeners(wanted: Wanted, found: Found, balancer: str) -> Iterator[Call]:
    for port, listener in wanted.listeners.items():
        group = found.group(listener.group)
        assert group is not None
        known = found.listeners.get(port)
        if known is None:
            yield _create_listener(wanted, found, listener, balancer, group.arn)
        else:
            yield from _change_listener(listener, known, group.arn)


def _create_listener(wanted: Wanted, found: Found, listener: Listener, balancer: str, group: str) -> Call:
    def made(answer: Any) -> None:
        arn = answer["Listeners"][0]["ListenerArn"]
        found.listeners[listener.port] = FoundListener(
            arn, listener.protocol, group, listener.certificates[:1], listener.policy, listener.alpn
        )

    arguments = {
        "LoadBalancerArn": balancer,
        "Port": listener.port,
        "Protocol": listener.protocol,
        "Tags": as_tags(wanted.tags | {names.RESOURCE: f"listener-{listener.port}"}),
    }
    return Call("elbv2", "create_listener", arguments | _forward(group) | _tls(listener), made)


def _change_listener(listener: Listener, known: FoundListener, group: str) -> Iterator[Call]:
    arn = {"ListenerArn": known.arn}
    changed = {"Protocol": listener.protocol} if listener.protocol != known.protocol else {}
    first = listener.certificates[:1]
    if (changed, first, listener.policy, listener.alpn, group) != (
        {},
        known.certificates[:1],
        known.policy,
        known.alpn,
        known.group_arn,
    ):

        def modified(_: Any) -> None:
            known.protocol, known.group_arn = listener.protocol, group
            known.certificates = (*first, *(c for c in known.certificates[1:] if c not in first and first))
            known.policy, known.alpn = listener.policy, listener.alpn

        yield Call("elbv2", "modify_listener", arn | changed | _forward(group) | _tls(listener), modified)
        return  # its further certificates once it has its first
    if missing := [c for c in listener.certificates[1:] if c not in known.certificates]:

        def added(_: Any) -> None:
            known.certificates = (*known.certificates, *missing)

        yield Call("elbv2", "add_listener_certificates", arn | _certificates(missing), added)
    if stale := [c for c in known.certificates[1:] if c not in listener.certificates]:

        def removed(_: Any) -> None:
            known.certificates = tuple(c for c in known.certificates if c not in stale)

        yield Call("elbv2", "remove_listener_certificates", arn | _certificates(stale), removed)
    yield from _attributes("modify_listener_attributes", arn, known.attributes, listener.attributes)


def _forward(group: str) -> dict[str, Any]:
    return {"DefaultActions": [{"Type": "forward", "TargetGroupArn": group}]}


def _tls(listener: Listener) -> dict[str, Any]:
    if listener.protocol != "TLS":
        return {}
    tls = {"SslPolicy": listener.policy, "AlpnPolicy": [listener.alpn]}
    return tls | _certificates(listener.certificates[:1])


def _certificates(arns: Iterable[str]) -> dict[str, Any]:
    return {"Certificates": [{"CertificateArn": arn} for arn in arns]}


# ── what is no longer wanted ─────────────────────────────────────────────────────────────────────────────────────────


def _removals(wanted: Wanted, found: Found) -> Iterator[Call]:
    for port, listener in found.listeners.items():
        if port not in wanted.listeners:
            yield Call("elbv2", "delete_listener", {"ListenerArn": listener.arn}, _with(found.listeners.pop, port))
    kept = {group.arn for key in wanted.groups if (group := found.group(key)) is not None}
    for group in found.groups.values():
        if group.arn not in kept:
            yield _delete_group(found, group)
    if wanted.permissions is None and found.security_group is not None:
        yield _delete_security_group(found)


def _with(change: Callable[[T], object], what: T) -> Callable[[Any], object]:
    """Called with an answer that says nothing new: `change(what)`."""
    return lambda _: change(what)


# ── attributes and tags ──────────────────────────────────────────────────────────────────────────────────────────────


def _attributes(
    operation: str, arn: dict[str, str], known: dict[str, str], wanted: Mapping[str, str]
) -> Iterator[Call]:
    """Those that are asked for and differ: the others are AWS's, or people's."""
    changed = {key: value for key, value in wanted.items() if known.get(key) != value}
    if changed:
        pairs = [{"Key": key, "Value": value} for key, value in sorted(changed.items())]
        yield Call("elbv2", operation, arn | {"Attributes": pairs}, lambda _: known.update(changed))


def _tags(api: str, identity: str, known: dict[str, str], wanted: Mapping[str, str]) -> Iterator[Call]:
    """First those that go: which they are is itself a tag, that what comes replaces."""
    which = {"ResourceArns": [identity]} if api == "elbv2" else {"Resources": [identity]}
    if stale := names.superfluous(known, wanted):
        keys: dict[str, Any] = {"TagKeys": stale} if api == "elbv2" else {"Tags": [{"Key": key} for key in stale]}

        def removed(_: Any) -> None:
            for key in stale:
                known.pop(key, None)

        yield Call(api, "remove_tags" if api == "elbv2" else "delete_tags", which | keys, removed)
    if changed := {key: value for key, value in wanted.items() if known.get(key) != value}:
        operation = "add_tags" if api == "elbv2" else "create_tags"
        yield Call(api, operation, which | {"Tags": as_tags(changed)}, lambda _: known.update(changed))


def as_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
