"""Which Service gets which addresses of which pool: stories, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kubesvc.api.balancing import Address, IPAddressPool, IPAddressPoolSpec, ServiceAllocation, parse_range
from kubesvc.api.core import Service, ServicePort, ServiceSpec
from kubesvc.api.meta import LabelSelector, ObjectMeta
from kubesvc.loadbalancer.provider import BadPool
from kubesvc.loadbalancer.providers.allocator import Allocator
from kubesvc.loadbalancer.providers.pools import Pool, collect, configured
from kubesvc.loadbalancer.providers.wishes import IPS, Reason, Refusal, Sharing, Wish, wish_of

S1, S2, S3 = ("shop", "s1"), ("shop", "s2"), ("shop", "s3")
NOTHING = configured([])


def ip(last: int) -> Address:
    return ip_address(f"172.29.7.{last}")


def ip6(last: int) -> Address:
    return ip_address(f"fd00::{last:x}")


def pool(name: str, *ranges: str, **more: object) -> Pool:
    return replace(Pool(name, tuple(parse_range(text) for text in ranges)), **more)  # type: ignore[arg-type]


V4 = pool("v4", "172.29.7.200-172.29.7.202")
BOTH = pool("both", "172.29.7.100-172.29.7.101", "fd00::1-fd00::2")
MANUAL = pool("manual", "172.29.7.10-172.29.7.10", auto_assign=False)
DUAL = Wish((4, 6))
WEB = Sharing("k", frozenset({("TCP", 80)}))
DNS = Sharing("k", frozenset({("UDP", 53)}))


@dataclass(frozen=True)
class Step:
    says: str
    do: Callable[[Allocator], object]
    then: object  # what it returns; a Reason stands for a refusal with that reason


def assign(key: tuple[str, str], wish: Wish = Wish()) -> Callable[[Allocator], object]:  # noqa: B008
    return lambda allocator: allocator.assign(key, wish)


def wants(*addresses: Address, families: tuple[int, ...] = (4,)) -> Wish:
    return Wish(families, addresses=addresses)


def adopt(key: tuple[str, str], *addresses: Address) -> Callable[[Allocator], object]:
    return lambda allocator: allocator.adopt(key, addresses)


def settle(key: tuple[str, str]) -> Callable[[Allocator], object]:
    return lambda allocator: allocator.settle(key)


def release(key: tuple[str, str]) -> Callable[[Allocator], object]:
    return lambda allocator: allocator.release(key)


def use(*pools: Pool) -> Callable[[Allocator], object]:
    return lambda allocator: allocator.configure(pools)


STORIES = {
    "an address asked for by name has one holder": [
        Step("s1 takes .201", assign(S1, wants(ip(201))), (ip(201),)),
        Step("s2 can't take s1's address", assign(S2, wants(ip(201))), Reason.ADDRESS_IN_USE),
        Step("s1 has it still", assign(S1), (ip(201),)),
        Step("s1 frees it", release(S1), [ip(201)]),
        Step("s2 can", assign(S2, wants(ip(201))), (ip(201),)),
    ],
    "the lowest free address, until there is none": [
        Step("s1 asks for .200", assign(S1, wants(ip(200))), (ip(200),)),
        Step("s2 gets the next", assign(S2), (ip(201),)),
        Step("and keeps it", assign(S2), (ip(201),)),
        Step("s3 gets the last", assign(S3), (ip(202),)),
        Step("a fourth waits", assign(("shop", "s4")), Reason.POOL_EXHAUSTED),
        Step("s2 leaves", release(S2), [ip(201)]),
        Step("twice is fine", release(S2), []),
        Step("the fourth is served", assign(("shop", "s4")), (ip(201),)),
    ],
    "a restart changes nobody's address": [
        Step("s2's status shows .200", adopt(S2, ip(200)), []),
        Step("s1's shows .202", adopt(S1, ip(202)), []),
        Step("s3's shows s1's address: it can't keep it", adopt(S3, ip(202)), [ip(202)]),
        Step("an address of no pool can't be kept", adopt(S3, ip(90)), [ip(90)]),
        Step("s1 as before", assign(S1), (ip(202),)),
        Step("s2 as before", assign(S2), (ip(200),)),
        Step("s3 gets the one between", assign(S3), (ip(201),)),
    ],
    "a Service that moves holds both until the move is published": [
        Step("s1 has .200", assign(S1), (ip(200),)),
        Step("s1 asks for .202", assign(S1, wants(ip(202))), (ip(202),)),
        Step("s2 can't have .200 yet", assign(S2, wants(ip(200))), Reason.ADDRESS_IN_USE),
        Step("nor does it get it by chance", assign(S2), (ip(201),)),
        Step("s1's status shows .202", settle(S1), [ip(200)]),
        Step("once", settle(S1), []),
        Step("s2 may move to it", assign(S2, wants(ip(200))), (ip(200),)),
    ],
    "an edit of another pool moves nobody": [
        Step("s1 has .200", assign(S1), (ip(200),)),
        Step("a pool that comes first appears", use(replace(BOTH, name="a"), V4), None),
        Step("s1 stays", assign(S1), (ip(200),)),
        Step("s2 is served from the new one", assign(S2), (ip(100),)),
        Step("the new one goes again", use(V4), None),
        Step("s2 has to move", assign(S2), (ip(201),)),
        Step("s1 stays", assign(S1), (ip(200),)),
    ],
    "two families": [
        Step("pools of both", use(V4, BOTH), None),
        Step("both addresses are of the pool that has both", assign(S1, DUAL), (ip(100), ip6(1))),
        Step("IPv4 alone", assign(S2), (ip(200),)),
        Step("one asked for, the other chosen", assign(S3, wants(ip6(2), families=(6, 4))), (ip6(2), ip(201))),
        Step("IPv6 is used up; IPv4 will do", assign(("shop", "s4"), DUAL), (ip(202),)),
        Step("if both aren't required", assign(("shop", "s5"), Wish((4, 6), True)), Reason.POOL_EXHAUSTED),
        Step("s1 goes", release(S1), [ip(100), ip6(1)]),
        Step("s4 gets its second", assign(("shop", "s4"), DUAL), (ip(202), ip6(1))),
    ],
    "no pool has the family": [
        Step("IPv6 alone", assign(S1, Wish((6,))), Reason.FAMILY_NOT_SERVED),
        Step("no pools at all", use(), None),
        Step("says so", assign(S1), Reason.NO_POOL),
    ],
    "a pool by name": [
        Step("one that doesn't assign by itself", use(V4, MANUAL), None),
        Step("is left alone", assign(S1), (ip(200),)),
        Step("until it is named", assign(S1, Wish(pool="manual")), (ip(10),)),
        Step("it is small", assign(S2, Wish(pool="manual")), Reason.POOL_EXHAUSTED),
        Step("an unknown one", assign(S2, Wish(pool="nosuch")), Reason.POOL_NOT_FOUND),
        Step("not that pool's", assign(S2, Wish(pool="manual", addresses=(ip(200),))), Reason.CONFLICTING_REQUEST),
    ],
    "a shared address": [
        Step("s1 has .200", assign(S1, Wish(sharing=WEB)), (ip(200),)),
        Step("s2 joins it: another port", assign(S2, Wish(sharing=DNS)), (ip(200),)),
        Step("s3 has s1's port", assign(S3, Wish(sharing=WEB)), (ip(201),)),
        Step("by name it is told", assign(S3, Wish(addresses=(ip(200),), sharing=WEB)), Reason.ADDRESS_IN_USE),
        Step(
            "another key",
            assign(S3, Wish(addresses=(ip(200),), sharing=replace(DNS, key="x"))),
            Reason.ADDRESS_IN_USE,
        ),
        Step("policy Local, another selector", assign(
            ("shop", "s4"), Wish(sharing=Sharing("k", frozenset({("TCP", 443)}), (("app", "x"),)))
        ), (ip(202),)),
        Step("s1 goes; s2 stays", release(S1), [ip(200)]),
        Step("s1's port is free again", assign(S3, Wish(addresses=(ip(200),), sharing=WEB)), (ip(200),)),
        Step("s2 stays", assign(S2, Wish(sharing=DNS)), (ip(200),)),
    ],
    "what devices with bugs can't use": [
        Step("a network from .0", use(pool("p", "10.0.0.0/24", avoid_buggy=True)), None),
        Step(".0 is left out", assign(S1), (ip_address("10.0.0.1"),)),
        Step("even if asked for", assign(S2, wants(ip_address("10.0.0.255"))), Reason.ADDRESS_OUTSIDE_POOL),
    ],
    "a network with 2^64 addresses": [
        Step("takes no longer", use(pool("p", "2001:db8::/64")), None),
        Step("than any other", assign(S1, Wish((6,))), (ip_address("2001:db8::"),)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_stories(story: list[Step]) -> None:
    allocator = Allocator([V4])
    for step in story:
        found = step.do(allocator)
        assert (found.reason if isinstance(found, Refusal) else found) == step.then, step.says


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["assign", "settle", "release", "pools"])), max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_two_ever_hold_one_address_and_none_leaks(steps: list[tuple[int, str]]) -> None:
    """Whatever happens in whatever order; and when all are gone, all is free again."""
    allocator, pools = Allocator([V4, BOTH]), [[V4, BOTH], [BOTH]]
    for number, what in steps:
        key = ("ns", str(number))
        match what:
            case "assign":
                allocator.assign(key, DUAL if number % 2 else Wish())
            case "settle":
                allocator.settle(key)
            case "release":
                allocator.release(key)
            case _:
                pools.reverse()
                allocator.configure(pools[0])
        held = [a for n in range(8) for a in allocator.current(("ns", str(n)))]
        assert len(held) == len(set(held))
    for number in range(8):
        allocator.release(("ns", str(number)))
    allocator.configure([V4, BOTH])
    assert [allocator.assign(("ns", str(n)), Wish()) for n in range(5)] == [(ip(n),) for n in (200, 201, 202, 100, 101)]


def service(annotations: dict[str, str] | None = None, **spec: object) -> Service:
    meta = ObjectMeta(name="web", namespace="shop", labels={"app": "web"}, annotations=annotations or {})
    return Service(metadata=meta, spec=ServiceSpec(ports=[ServicePort(port=80)], **spec))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "wish"),
    [
        (service(), Wish()),
        (service(load_balancer_ip="172.29.7.201"), wants(ip(201))),
        *((service({a: "172.29.7.201"}), wants(ip(201))) for a in IPS),
        (service({IPS[0]: "fd00::1,172.29.7.1"}, ip_families=["IPv4", "IPv6"]), wants(ip(1), ip6(1), families=(4, 6))),
        (service({IPS[0]: "fd00::1"}), Reason.FAMILY_NOT_SERVED),
        (service({IPS[0]: "one"}), Reason.INVALID_ADDRESS),
        (service({IPS[0]: "172.29.7.1"}, load_balancer_ip="172.29.7.2"), Reason.CONFLICTING_REQUEST),
        (service({"metallb.io/address-pool": "gold"}), Wish(pool="gold")),
        (service({"metallb.universe.tf/allow-shared-ip": "k"}), Wish(sharing=WEB)),
        (
            service({"metallb.io/allow-shared-ip": "k"}, external_traffic_policy="Local", selector={"app": "x"}),
            Wish(sharing=replace(WEB, backends=(("app", "x"),))),
        ),
        (service(ip_families=["IPv6", "IPv4"], ip_family_policy="RequireDualStack"), Wish((6, 4), True)),
    ],
)
def test_what_a_service_asks_for(given: Service, wish: object) -> None:
    found = wish_of(given)
    assert (found.reason if isinstance(found, Refusal) else found) == wish


def pool_object(name: str, *addresses: str, created: str = "2026-01-01T00:00:00Z", **more: object) -> IPAddressPool:
    spec = IPAddressPoolSpec(addresses=list(addresses), **more)  # type: ignore[arg-type]
    return IPAddressPool(metadata=ObjectMeta(name=name, creation_timestamp=created), spec=spec)


def test_pools_are_tried_by_selection_then_priority() -> None:
    found, refused = collect(
        [
            pool_object("open", "10.0.0.0/24"),
            pool_object(
                "second", "10.0.1.0/24", service_allocation=ServiceAllocation(priority=20, namespaces=["shop"])
            ),
            pool_object("first", "10.0.2.0/24", service_allocation=ServiceAllocation(priority=10, namespaces=["shop"])),
            pool_object("last", "10.0.3.0/24", service_allocation=ServiceAllocation(namespaces=["shop"])),
        ],
        NOTHING,
    )
    assert [p.name for p in found] == ["first", "second", "last", "open"]
    assert refused == {}


def test_the_younger_of_two_that_overlap_is_set_aside() -> None:
    older = pool_object("b", "10.0.0.0/24")
    younger = pool_object("a", "10.0.0.128-10.0.1.4", created="2026-01-02T00:00:00Z")
    found, refused = collect([younger, older], NOTHING)
    assert [p.name for p in found] == ["b"]
    assert "overlap those of pool b" in refused["a"]


@pytest.mark.parametrize(
    ("allocation", "admitted"),
    [
        (ServiceAllocation(namespaces=["shop"]), True),
        (ServiceAllocation(namespaces=["other"]), False),
        (ServiceAllocation(namespace_selectors=[LabelSelector(match_labels={"team": "a"})]), True),
        (ServiceAllocation(namespace_selectors=[LabelSelector(match_labels={"team": "b"})]), False),
        (ServiceAllocation(service_selectors=[LabelSelector(match_labels={"app": "web"})]), True),
        (
            ServiceAllocation(namespaces=["shop"], service_selectors=[LabelSelector(match_labels={"app": "db"})]),
            False,
        ),
    ],
)
def test_who_may_have_an_address_of_a_pool(allocation: ServiceAllocation, admitted: bool) -> None:
    found, _ = collect([pool_object("p", "10.0.0.0/24", service_allocation=allocation)], NOTHING)
    assert found[0].admits(service(), {"team": "a"}) is admitted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.9-10.0.0.1", "ends before it begins"),
        ("10.0.0.1", "neither a network"),
        ("10.0.0.1-fd00::1", "different IP families"),
        ("ten", "neither a network"),
    ],
)
def test_what_is_no_range(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_range(text)


@pytest.mark.parametrize(
    "ranges", ["10.0.0.0/24", "10.0.0.0/22", "10.0.0.255-10.0.1.0", "10.0.0.1-10.0.0.254", "::/120"]
)
def test_a_pools_size_leaves_out_what_it_never_gives(ranges: str) -> None:
    first, last = parse_range(ranges)
    given = pool("p", ranges, avoid_buggy=True)
    addresses = [ip_address(first.packed) + n for n in range(int(last) - int(first) + 1)]
    assert given.size(first.version) == sum(a in given for a in addresses)


def test_configured_ranges_may_not_overlap() -> None:
    with pytest.raises(BadPool, match="overlap"):
        configured([parse_range("10.0.0.0/24"), parse_range("10.0.0.5-10.0.0.6")])
