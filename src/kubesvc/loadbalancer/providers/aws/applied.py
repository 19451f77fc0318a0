"""What was applied, kept in AWS itself: a restart looks into no load balancer that is as it was left. Pure.

Listeners, targets and attributes have no list: they are asked for one by one. A tag on the load balancer has the
fingerprint of what was wanted when all of it was done. It is taken away before the first call that changes anything,
so that a crash on the way leaves none. Where targets are pods there is no fingerprint: they come and go too often for
two more writes each time, and while nobody looks.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from kubesvc.loadbalancer.providers.aws import names
from kubesvc.loadbalancer.providers.aws.model import Found, FoundBalancer, FoundGroup, FoundListener, Wanted
from kubesvc.loadbalancer.providers.aws.plan import Call, as_tags, next_calls


def fingerprint(wanted: Wanted) -> str:
    """The same for the same wishes in any process; "" where targets are pods."""
    if any(group.target_type == "ip" for group in wanted.groups.values()):
        return ""
    text = json.dumps(wanted, sort_keys=True, default=_plain)
    return sha256(text.encode()).hexdigest()[:32]


def _plain(some: Any) -> Any:
    """A record, or a set."""
    return asdict(some) if isinstance(some, msgspec.Struct) else sorted(map(repr, some))


def steps(wanted: Wanted, found: Found) -> list[Call]:
    """As plan.next_calls, between the fingerprint's going and its coming."""
    calls, balancer = next_calls(wanted, found), found.balancer
    if balancer is None:
        return calls
    known, reached = balancer.tags.get(names.APPLIED, ""), fingerprint(wanted)
    if calls or not reached:
        return [*([_unmark(balancer)] if known else []), *calls]
    return [] if known == reached else [_mark(balancer, reached)]


def as_listed(wanted: Wanted, found: Found) -> bool:
    """Is all as wanted, as far as lists and the fingerprint tell?"""
    if found.balancer is None or not fingerprint(wanted):
        return False
    return not steps(wanted, _inside_as_wanted(wanted, found, found.balancer))


def _inside_as_wanted(wanted: Wanted, found: Found, balancer: FoundBalancer) -> Found:
    """A copy, where what no list tells is as it should be."""
    groups: dict[str, FoundGroup] = {}
    for arn, group in found.groups.items():
        meant = wanted.groups.get(group.key)
        inside = {"attributes": dict(meant.attributes), "targets": set(meant.targets)} if meant else {}
        groups[arn] = replace(group, **inside)
    copy = replace(found, balancer=replace(balancer, attributes=dict(wanted.attributes)), groups=groups)
    copy.listeners = {
        port: FoundListener("", one.protocol, behind.arn, one.certificates, one.policy, one.alpn, dict(one.attributes))
        for port, one in wanted.listeners.items()
        if (behind := found.group(one.group)) is not None
    }
    return copy


def _mark(balancer: FoundBalancer, reached: str) -> Call:
    def marked(_: Any) -> None:
        balancer.tags[names.APPLIED] = reached

    tags = as_tags({names.APPLIED: reached})
    return Call("elbv2", "add_tags", {"ResourceArns": [balancer.arn], "Tags": tags}, marked)


def _unmark(balancer: FoundBalancer) -> Call:
    arguments = {"ResourceArns": [balancer.arn], "TagKeys": [names.APPLIED]}
    return Call("elbv2", "remove_tags", arguments, lambda _: balancer.tags.pop(names.APPLIED, None))
