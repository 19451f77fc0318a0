"""Hand-written Endpoints of a Service without a selector become slices."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubesvc.api.core import Endpoints
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import LEADER, SKIP_MIRROR
from kubesvc.controllers.mirroring.plan import MOST, Plan, is_mirrored, plan
from support.objects import endpoint_slice, make, service

HTTP = [{"name": "http", "port": 8080, "protocol": "TCP"}]


def endpoints(*subsets: dict[str, Any], **meta: Any) -> Endpoints:
    return make(Endpoints, "db", meta, subsets=list(subsets))


def subset(*ready: str, waiting: tuple[str, ...] = (), ports: Any = HTTP) -> dict[str, Any]:
    return {
        "addresses": [{"ip": ip} for ip in ready],
        "notReadyAddresses": [{"ip": ip} for ip in waiting],
        "ports": ports,
    }


def carry_out(decided: Plan, slices: list[EndpointSlice]) -> list[EndpointSlice]:
    """The slices after the plan, as the API would hold them."""
    kept = {s.name: s for s in slices if s not in decided.delete}
    for number, tree in enumerate(decided.create):
        made = make(EndpointSlice, f"db-{len(slices) + number}", tree["metadata"], **_body(tree))
        kept[made.name] = made
    for found, tree in decided.update:
        meta = {
            "labels": {k: v for k, v in tree["metadata"]["labels"].items() if v is not None},
            "annotations": {k: v for k, v in tree["metadata"]["annotations"].items() if v is not None},
        }
        whole = msgspec.to_builtins(found)
        whole["metadata"] |= meta
        kept[found.name] = msgspec.convert({**whole, **_body(tree)}, EndpointSlice)
    return sorted(kept.values(), key=lambda s: s.name)


def _body(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in tree.items() if k != "metadata"}


def shown(slices: list[EndpointSlice]) -> list[Any]:
    return [
        (s.address_type, [p.port for p in s.ports or []], {e.addresses[0]: e.ready for e in s.endpoints})
        for s in slices
    ]


@pytest.mark.parametrize(
    ("story", "spec", "meta", "expected"),
    [
        ("hand-written", {"selector": None}, {}, True),
        ("the Service selects pods", {}, {}, False),
        ("asked to be skipped", {"selector": None}, {"labels": {SKIP_MIRROR: "true"}}, False),
        ("asked not to be skipped", {"selector": None}, {"labels": {SKIP_MIRROR: "false"}}, True),
        ("somebody's lock", {"selector": None}, {"annotations": {LEADER: "{}"}}, False),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_mirrored(story: str, spec: dict[str, Any], meta: dict[str, Any], expected: bool) -> None:
    assert is_mirrored(service("db", **spec), endpoints(**meta)) is expected


def test_nothing_is_mirrored_without_service_or_endpoints() -> None:
    assert not is_mirrored(None, endpoints())
    assert not is_mirrored(service("db", selector=None), None)


def test_a_mirrors_life() -> None:
    """Made with labels, owner and only `ready`; written again only for a change; a second family; all gone."""
    hand = endpoints(
        subset("192.0.2.1", waiting=("192.0.2.2",)),
        labels={"team": "shop"},
        annotations={"note": "x", "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
    )
    decided = plan(hand, [])
    (tree,) = decided.create
    assert tree["metadata"] == {
        "generateName": "db-",
        "namespace": "default",
        "labels": {
            "team": "shop",
            "kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        },
        "annotations": {"note": "x"},
        "ownerReferences": [
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "name": "db",
                "uid": "uid-db",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    assert tree["endpoints"] == [
        {"addresses": ["192.0.2.1"], "conditions": {"ready": True}},
        {"addresses": ["192.0.2.2"], "conditions": {"ready": False}},
    ]
    slices = carry_out(decided, [])
    assert plan(hand, slices) == Plan()

    both = endpoints(subset("192.0.2.1", "fd00::1"))
    decided = plan(both, slices)
    assert (len(decided.create), len(decided.update), len(decided.delete)) == (1, 1, 0)
    slices = carry_out(decided, slices)
    assert shown(slices) == [("IPv4", [8080], {"192.0.2.1": True}), ("IPv6", [8080], {"fd00::1": True})]
    assert slices[0].metadata.annotations == {}, "annotations that went are taken away"
    assert plan(both, slices) == Plan()

    decided = plan(endpoints(), slices)
    assert decided.delete == slices
    assert not decided.create


def test_each_set_of_ports_has_its_slice_and_subsets_of_the_same_ports_share_one() -> None:
    hand = endpoints(subset("192.0.2.1"), subset("192.0.2.2", ports=[{"port": 9090}]), subset("192.0.2.3"))
    assert shown(carry_out(plan(hand, []), [])) == [
        ("IPv4", [8080], {"192.0.2.1": True, "192.0.2.3": True}),
        ("IPv4", [9090], {"192.0.2.2": True}),
    ]


def test_a_thousand_of_a_subset_are_mirrored_ready_ones_first() -> None:
    ready = tuple(f"10.0.{i // 250}.{i % 250 + 1}" for i in range(MOST - 1))
    decided = plan(endpoints(subset(*ready, waiting=("10.1.0.1", "10.1.0.2"))), [])
    (tree,) = decided.create
    assert len(tree["endpoints"]) == MOST
    assert tree["endpoints"][-1]["conditions"] == {"ready": False}
    assert decided.skipped == 1


def test_what_is_no_address_is_left_out_and_named() -> None:
    decided = plan(endpoints(subset("192.0.2.1", "example.org")), [])
    assert [e["addresses"] for e in decided.create[0]["endpoints"]] == [["192.0.2.1"]]
    assert decided.invalid == ("example.org",)


def test_slices_of_others_and_of_an_earlier_object_are_told_apart() -> None:
    """A foreign slice is left alone; a mirror of Endpoints of the same name, deleted since, is replaced."""
    hand = endpoints(subset("192.0.2.1"))
    foreign = endpoint_slice("mine", {"labels": {"kubernetes.io/service-name": "db"}})
    old = carry_out(plan(endpoints(subset("192.0.2.1"), uid="uid-before"), []), [])
    decided = plan(hand, [foreign, *old])
    assert (len(decided.create), decided.update, decided.delete) == (1, [], old)
