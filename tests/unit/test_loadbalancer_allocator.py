"""Which Service gets which address of the pool: stories, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from kubesvc.loadbalancer.provider import BadPool
from kubesvc.loadbalancer.providers.allocator import ANNOTATIONS, Allocator, Reason, Refusal, requested_address

S1, S2, S3 = ("shop", "s1"), ("shop", "s2"), ("shop", "s3")


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"172.29.7.{last}")


POOL = ((ip(200), ip(202)),)


@dataclass(frozen=True)
class Step:
    says: str
    do: Callable[[Allocator], object]
    then: object  # what it returns; a Reason stands for a refusal with that reason


def assign(key: tuple[str, str], wanted: IPv4Address | None = None) -> Callable[[Allocator], object]:
    return lambda allocator: allocator.assign(key, wanted)


def adopt(key: tuple[str, str], address: IPv4Address) -> Callable[[Allocator], object]:
    return lambda allocator: allocator.adopt(key, address)


def settle(key: tuple[str, str]) -> Callable[[Allocator], object]:
    return lambda allocator: allocator.settle(key)


def release(key: tuple[str, str]) -> Callable[[Allocator], object]:
    return lambda allocator: allocator.release(key)


STORIES = {
    "an address asked for by name has one holder": [
        Step("s1 takes .201", assign(S1, ip(201)), ip(201)),
        Step("s2 can't take s1's address", assign(S2, ip(201)), Reason.ADDRESS_IN_USE),
        Step("s1 has it still", assign(S1), ip(201)),
        Step("s1 frees it", release(S1), [ip(201)]),
        Step("s2 can", assign(S2, ip(201)), ip(201)),
    ],
    "the lowest free address, until there is none": [
        Step("s1 asks for .200", assign(S1, ip(200)), ip(200)),
        Step("s2 gets the next", assign(S2), ip(201)),
        Step("and keeps it", assign(S2), ip(201)),
        Step("s3 gets the last", assign(S3), ip(202)),
        Step("a fourth waits", assign(("shop", "s4")), Reason.POOL_EXHAUSTED),
        Step("s2 leaves", release(S2), [ip(201)]),
        Step("twice is fine", release(S2), []),
        Step("the fourth is served", assign(("shop", "s4")), ip(201)),
    ],
    "a restart changes nobody's address": [
        Step("s2's status shows .200", adopt(S2, ip(200)), True),
        Step("s1's shows .202", adopt(S1, ip(202)), True),
        Step("s3's shows s1's address: it can't keep it", adopt(S3, ip(202)), False),
        Step("an address of another pool can't be kept", adopt(S3, ip(90)), False),
        Step("s1 as before", assign(S1), ip(202)),
        Step("s2 as before", assign(S2), ip(200)),
        Step("s3 gets the one between", assign(S3), ip(201)),
    ],
    "a Service that moves holds both until the move is published": [
        Step("s1 has .200", assign(S1), ip(200)),
        Step("s1 asks for .202", assign(S1, ip(202)), ip(202)),
        Step("s2 can't have .200 yet", assign(S2, ip(200)), Reason.ADDRESS_IN_USE),
        Step("nor does it get it by chance", assign(S2), ip(201)),
        Step("s1's status shows .202", settle(S1), [ip(200)]),
        Step("once", settle(S1), []),
        Step("now s3 can", assign(S3, ip(200)), ip(200)),
    ],
    "a Service that moves and turns back": [
        Step("s1 has .200", assign(S1), ip(200)),
        Step("asks for .201", assign(S1, ip(201)), ip(201)),
        Step("turns back", assign(S1, ip(200)), ip(200)),
        Step("only .201 is freed", settle(S1), [ip(201)]),
        Step("s1 has .200", assign(S1), ip(200)),
    ],
    "a refusal takes nothing away": [
        Step("s1 has .200", assign(S1), ip(200)),
        Step("s2 has .201", assign(S2), ip(201)),
        Step("s1 asks for s2's", assign(S1, ip(201)), Reason.ADDRESS_IN_USE),
        Step("s1 asks for one outside", assign(S1, ip(9)), Reason.ADDRESS_OUTSIDE_POOL),
        Step("s1 has .200", assign(S1), ip(200)),
    ],
    "an address freed, taken by name and freed again is handed out once": [
        Step("s1 has .200", assign(S1), ip(200)),
        Step("frees it", release(S1), [ip(200)]),
        Step("s2 takes it by name", assign(S2, ip(200)), ip(200)),
        Step("s1 gets another", assign(S1), ip(201)),
        Step("s2 frees it", release(S2), [ip(200)]),
        Step("s3 gets it", assign(S3), ip(200)),
        Step("s2 gets the last", assign(S2), ip(202)),
        Step("a fourth waits", assign(("shop", "s4")), Reason.POOL_EXHAUSTED),
    ],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_addresses_have_one_holder(story: list[Step]) -> None:
    allocator = Allocator(POOL)
    for step in story:
        got = step.do(allocator)
        seen = got.reason if isinstance(got, Refusal) else got
        assert seen == step.then, f"{step.says}: {got}"


def test_ranges_are_used_one_after_the_other() -> None:
    allocator = Allocator(((ip(240), ip(240)), (ip(200), ip(201))))
    got = [allocator.assign(("shop", f"s{n}"), None) for n in range(4)]
    assert got[:3] == [ip(200), ip(201), ip(240)]
    assert isinstance(got[3], Refusal)
    assert got[3].message == (
        "the pool 172.29.7.200-172.29.7.201, 172.29.7.240-172.29.7.240 has no free address, 3 in use; "
        "free one or extend the pool"
    )


def test_a_refusal_names_the_holder() -> None:
    allocator = Allocator(POOL)
    allocator.assign(S1, ip(200))
    assert allocator.assign(S2, ip(200)) == Refusal(Reason.ADDRESS_IN_USE, "172.29.7.200 is held by Service shop/s1")


def test_an_empty_pool_refuses_everything() -> None:
    refusal = Allocator(()).assign(S1, None)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.POOL_EXHAUSTED


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (((ip(9), ip(8)),), "pool 172.29.7.9-172.29.7.8 ends before it begins"),
        (
            ((ip(8), ip(20)), (ip(1), ip(8))),
            "pools 172.29.7.1-172.29.7.8 and 172.29.7.8-172.29.7.20 overlap",
        ),
    ],
    ids=["backwards", "overlapping"],
)
def test_a_pool_that_can_not_be_used_is_refused(
    ranges: tuple[tuple[IPv4Address, IPv4Address], ...], message: str
) -> None:
    with pytest.raises(BadPool) as caught:
        Allocator(ranges)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("load_balancer_ip", "annotations", "wanted"),
    [
        ("", {}, None),
        ("172.29.7.201", {}, ip(201)),
        ("", {ANNOTATIONS[0]: "172.29.7.201"}, ip(201)),
        ("", {"metallb.io/loadBalancerIPs": " 172.29.7.201 "}, ip(201)),
        ("172.29.7.201", {"metallb.io/loadBalancerIPs": "172.29.7.201"}, ip(201)),
        ("172.29.7.201", {"metallb.io/loadBalancerIPs": "172.29.7.202"}, Reason.CONFLICTING_REQUEST),
        ("", {ANNOTATIONS[0]: "172.29.7.201,172.29.7.202"}, Reason.CONFLICTING_REQUEST),
        ("", {ANNOTATIONS[0]: "fd00::1"}, Reason.FAMILY_NOT_SERVED),
        ("172.29.7", {}, Reason.INVALID_ADDRESS),
    ],
    ids=[
        "nothing", "spec", "ours", "metallb", "both-agree", "both-differ", "two", "ipv6", "nonsense",
    ],
)  # fmt: skip
def test_the_address_asked_for(load_balancer_ip: str, annotations: dict[str, str], wanted: object) -> None:
    got = requested_address(load_balancer_ip, annotations)
    assert (got.reason if isinstance(got, Refusal) else got) == wanted
