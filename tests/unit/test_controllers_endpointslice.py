"""The story of a Service's slices: who is an endpoint, and how few writes keep the slices true."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubesvc.api.balance import read_weights
from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import BALANCE, HEADLESS, LAST_CHANGE_TRIGGER_TIME, WEIGHT, WEIGHTS, ZONE
from kubesvc.api.pods import Pod
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.endpointslice import plan as planning
from kubesvc.controllers.endpointslice.members import members
from kubesvc.controllers.endpointslice.plan import Plan, plan, tree
from kubesvc.controllers.endpointslice.triggers import Triggers
from support.objects import endpoint_slice, node, pod, service

NODES = {"n1": node("n1", {ZONE: "a"}), "n2": node("n2", {ZONE: "b"})}


def decide(svc: Service, pods: list[Pod], slices: list[EndpointSlice], most: int = 100) -> Plan:
    found = members(svc, pods, NODES)
    return plan(svc, found.groups, slices, most=most, weights=found.weights)


def carry_out(svc: Service, pods: list[Pod], slices: list[EndpointSlice], most: int = 100) -> list[EndpointSlice]:
    """The slices after the plan, as the API would hold them."""
    decided = decide(svc, pods, slices, most)
    kept = {s.name: s for s in slices if s not in decided.delete}
    for number, draft in enumerate([*decided.update, *decided.create]):
        wire = tree(svc, draft, None)
        wire["metadata"] |= {
            "namespace": "default",
            "name": draft.found.name if draft.found else f"web-new{len(slices) + number}",
            "labels": {k: v for k, v in wire["metadata"]["labels"].items() if v is not None},
            "annotations": {k: v for k, v in wire["metadata"].get("annotations", {}).items() if v is not None},
        }
        if draft.found:  # a patch leaves the owner alone
            owners = draft.found.metadata.owner_references
            wire["metadata"]["ownerReferences"] = [msgspec.to_builtins(r) for r in owners]
        made = msgspec.convert(wire, EndpointSlice)
        kept[made.name] = made
    return sorted(kept.values(), key=lambda s: s.name)


def test_a_slices_life() -> None:
    """Placeholder, first pod, more pods, one gone, all gone: one slice all along, one write each time."""
    svc = service()
    slices = carry_out(svc, [], [])
    assert [(s.ports, s.endpoints) for s in slices] == [([], [])]
    assert decide(svc, [], slices) == Plan()

    pods = [pod("a", "10.0.0.1")]
    decided = decide(svc, pods, slices)
    assert (len(decided.create), len(decided.update), len(decided.delete)) == (0, 1, 0), "the placeholder is rewritten"
    slices = carry_out(svc, pods, slices)
    assert [e.addresses for s in slices for e in s.endpoints] == [["10.0.0.1"]]
    assert slices[0].ports is not None
    assert [(p.name, p.protocol, p.port) for p in slices[0].ports] == [("http", "TCP", 8080)]
    assert decide(svc, pods, slices) == Plan()

    pods.append(pod("b", "10.0.0.2", ready=False))
    slices = carry_out(svc, pods, slices)
    assert [(e.ready, e.serving, e.terminating) for e in slices[0].endpoints] == [
        (True, True, False),
        (False, False, False),
    ]
    slices = carry_out(svc, [], slices)
    assert [(s.ports, s.endpoints) for s in slices] == [([], [])]


@pytest.mark.parametrize(
    ("story", "one", "spec", "expected"),
    [
        ("a ready pod", pod("a", "10.0.0.1"), {}, (True, True, False)),
        ("not ready", pod("a", "10.0.0.1", ready=False), {}, (False, False, False)),
        (
            "not ready but published",
            pod("a", "10.0.0.1", ready=False),
            {"publishNotReadyAddresses": True},
            (True, False, False),
        ),
        ("terminating, still serving", pod("a", "10.0.0.1", going=True), {}, (False, True, True)),
        (
            "terminating but published",
            pod("a", "10.0.0.1", going=True),
            {"publishNotReadyAddresses": True},
            (True, True, True),
        ),
        ("finished", pod("a", "10.0.0.1", phase="Succeeded"), {}, None),
        ("failed", pod("a", "10.0.0.1", phase="Failed"), {}, None),
        ("without an address", pod("a"), {}, None),
        ("on a node not known yet", pod("a", "10.0.0.1", node="n9"), {}, None),
        (
            "on an unknown node but published",
            pod("a", "10.0.0.1", node="n9"),
            {"publishNotReadyAddresses": True},
            (True, True, False),
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_who_is_an_endpoint(
    story: str, one: Pod, spec: dict[str, Any], expected: tuple[bool, bool, bool] | None
) -> None:
    """Conditions of the one endpoint, or none."""
    found = [e for g in members(service(**spec), [one], NODES).groups.values() for e in g]
    assert [(e.ready, e.serving, e.terminating) for e in found] == ([expected] if expected else [])


def test_an_unknown_node_is_named_so_that_its_arrival_is_waited_for() -> None:
    assert members(service(), [pod("a", "10.0.0.1", node="n9")], NODES).missing_nodes == {"n9"}


def test_each_family_has_its_own_slices() -> None:
    svc = service(ipFamilies=["IPv4", "IPv6"])
    slices = carry_out(svc, [pod("a", ["10.0.0.1", "fd00::1"])], [])
    assert sorted((s.address_type, s.endpoints[0].addresses[0]) for s in slices) == [
        ("IPv4", "10.0.0.1"),
        ("IPv6", "fd00::1"),
    ]
    slices = carry_out(svc, [pod("a", ["10.0.0.1"])], slices)
    assert {s.address_type: len(s.endpoints) for s in slices} == {"IPv4": 1, "IPv6": 0}, "IPv6 keeps a placeholder"
    slices = carry_out(service(), [pod("a", ["10.0.0.1"])], slices)
    assert [s.address_type for s in slices] == ["IPv4"], "a family no longer served has no slices"


def test_a_named_target_port_is_looked_up_in_each_pod() -> None:
    svc = service(ports=[{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}])

    def listening(name: str, ip: str, port: int) -> Pod:
        ports = [{"name": "web", "containerPort": port, "protocol": "TCP"}]
        return pod(name, ip, containers=[{"name": "c", "ports": ports}])

    slices = carry_out(svc, [listening("a", "10.0.0.1", 8080), listening("b", "10.0.0.2", 9090)], [])
    assert sorted((s.ports[0].port, s.endpoints[0].addresses[0]) for s in slices if s.ports) == [
        (8080, "10.0.0.1"),
        (9090, "10.0.0.2"),
    ]
    both = [listening("a", "10.0.0.1", 9090), listening("b", "10.0.0.2", 9090)]
    decided = decide(svc, both, slices)
    assert (len(decided.update), len(decided.delete), len(decided.create)) == (1, 1, 0)


def test_packing_writes_little_and_never_rebalances() -> None:
    """Three a slice: filling, a hole, the hole filled by the tightest fit, a full replacement."""
    svc = service()
    pods = [pod(f"p{i}", f"10.0.0.{i}") for i in range(1, 8)]
    slices = carry_out(svc, pods, [], most=3)
    assert sorted(len(s.endpoints) for s in slices) == [1, 3, 3]

    fewer = [p for p in pods if p.name not in ("p1", "p2")]
    decided = decide(svc, fewer, slices, most=3)
    assert (len(decided.update), len(decided.create), len(decided.delete)) == (1, 0, 0)
    slices = carry_out(svc, fewer, slices, most=3)
    assert sorted(len(s.endpoints) for s in slices) == [1, 1, 3]

    swapped = [*[p for p in fewer if p.name != "p4"], pod("p8", "10.0.0.8")]
    decided = decide(svc, swapped, slices, most=3)
    assert len(decided.update) == 1, "the new endpoint goes where one has just left"
    assert not decided.create

    slices = carry_out(svc, swapped, slices, most=3)
    two_more = [*swapped, pod("p9", "10.0.0.9"), pod("q1", "10.0.0.10")]
    decided = decide(svc, two_more, slices, most=3)
    assert [len(d.endpoints) for d in decided.update] == [3], "both fit into one slice that has room for two"
    assert not decided.create


def test_a_deleted_slice_comes_back_and_a_foreign_one_is_left_alone() -> None:
    svc = service()
    foreign = endpoint_slice(
        "mine", {"labels": {"kubernetes.io/service-name": "web"}}, addressType="IPv4", endpoints=[], ports=[]
    )
    decided = decide(svc, [pod("a", "10.0.0.1")], [foreign])
    assert [len(d.endpoints) for d in decided.create] == [1]
    assert not decided.update
    assert not decided.delete


def test_slices_of_an_earlier_service_of_the_same_name_are_not_adopted() -> None:
    svc = service()
    old = carry_out(svc, [pod("a", "10.0.0.1")], [])
    reborn = msgspec.structs.replace(svc, metadata=msgspec.structs.replace(svc.metadata, uid="uid-another"))
    decided = decide(reborn, [pod("a", "10.0.0.1")], old)
    assert (len(decided.create), len(decided.update), decided.delete) == (1, 0, old)


def test_labels_follow_the_service() -> None:
    svc = service(labels={"team": "shop"}, clusterIP="None")
    slices = carry_out(svc, [pod("a", "10.0.0.1")], [])
    assert slices[0].metadata.labels == {
        "team": "shop",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        HEADLESS: "",
    }
    plain = service(clusterIP="None")
    decided = decide(plain, [pod("a", "10.0.0.1")], slices)
    assert tree(plain, decided.update[0], None)["metadata"]["labels"]["team"] is None, "a patch removes the stale label"


def weighing(name: str, ip: str, weight: str | None) -> Pod:
    return pod(name, ip, meta={} if weight is None else {"annotations": {WEIGHT: weight}})


def test_weights_come_with_the_slice_of_a_service_that_counts_them() -> None:
    """Written with the endpoints, rewritten when one changes, gone when the Service doesn't ask any more."""
    asking, other = service(annotations={BALANCE: "weighted"}), service()
    pods = [weighing("a", "10.0.0.1", "5"), weighing("b", "10.0.0.2", None), weighing("c", "10.0.0.3", "0")]
    assert carry_out(other, pods, [])[0].metadata.annotations == {}
    slices = carry_out(asking, pods, [])
    assert slices[0].metadata.annotations == {WEIGHTS: "10.0.0.1=5,10.0.0.3=0"}
    assert decide(asking, pods, slices) == Plan()

    pods[1] = weighing("b", "10.0.0.2", "7")
    slices = carry_out(asking, pods, slices)
    assert slices[0].metadata.annotations == {WEIGHTS: "10.0.0.1=5,10.0.0.2=7,10.0.0.3=0"}
    assert len(slices) == 1
    slices = carry_out(other, pods, slices)
    assert slices[0].metadata.annotations == {}
    assert decide(other, pods, slices) == Plan()


def test_each_slice_has_the_weights_of_its_own_endpoints() -> None:
    """However they are packed; both families."""
    asking = service(annotations={BALANCE: "maglev"}, ipFamilies=["IPv4", "IPv6"])
    pods = [pod(f"p{n}", [f"10.0.0.{n}", f"fd00::{n}"], meta={"annotations": {WEIGHT: str(n)}}) for n in range(2, 6)]
    for found in carry_out(asking, pods, [], most=2):
        assert read_weights(found.metadata.annotations[WEIGHTS]) == {
            e.addresses[0]: int(e.addresses[0][-1]) for e in found.endpoints
        }


@pytest.mark.parametrize("weight", ["-1", "101", "1.5", "", "many", "٣", " 3"])
def test_a_weight_that_is_none_counts_as_one_and_is_named(weight: str) -> None:
    """Pod, value, and what was expected."""
    found = members(service(annotations={BALANCE: "weighted"}), [weighing("a", "10.0.0.1", weight)], NODES)
    assert found.weights == {}
    ((_, text),) = found.complaints
    assert text == (
        f"pod default/a: annotation kubesvc.dev/weight is {weight!r}; expected a whole number from 0 to 100; taken as 1"
    )


def test_hostname_only_of_pods_in_the_services_subdomain() -> None:
    svc = service()
    pods = [
        pod("a", "10.0.0.1", hostname="db-0", subdomain="web"),
        pod("b", "10.0.0.2", hostname="db-1", subdomain="other"),
    ]
    found = [e.hostname for g in members(svc, pods, NODES).groups.values() for e in g]
    assert found == ["db-0", None]


@pytest.mark.parametrize(
    ("wanted", "hints"),
    [
        (None, None),
        ("PreferClose", {"forZones": [{"name": "a"}]}),
        ("PreferSameZone", {"forZones": [{"name": "a"}]}),
        ("PreferSameNode", {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]}),
    ],
)
def test_traffic_distribution_hints(wanted: str | None, hints: object) -> None:
    """A ready endpoint is for its own zone; one that isn't ready has no hints."""
    svc = service(trafficDistribution=wanted)
    pods = [pod("a", "10.0.0.1"), pod("b", "10.0.0.2", ready=False)]
    first, second = (e for g in members(svc, pods, NODES).groups.values() for e in g)
    assert (msgspec.to_builtins(first.hints) if first.hints else None) == hints
    assert second.hints is None
    assert first.zone == "a"


def test_trigger_time_is_the_earliest_that_is_new() -> None:
    triggers, svc = Triggers(), service()
    early, late = pod("a", "10.0.0.1", since="2026-01-02T00:00:00Z"), pod("b", "1.1.1.1", since="2026-01-03T00:00:00Z")
    assert triggers.earliest(svc, [early]) == svc.metadata.creation_timestamp
    triggers.settle(svc, [early])
    assert triggers.earliest(svc, [early]) is None
    assert triggers.earliest(svc, [early, late]) == "2026-01-03T00:00:00Z"
    assert triggers.earliest(svc, [early, late]) == "2026-01-03T00:00:00Z", "until it is settled, as after a conflict"
    triggers.forget(svc.key)
    assert triggers.earliest(svc, []) == svc.metadata.creation_timestamp


def test_a_new_slice_is_owned_and_named_after_its_service() -> None:
    svc = service()
    wire = tree(svc, decide(svc, [pod("a", "10.0.0.1")], []).create[0], "2026-01-02T00:00:00Z")
    meta = wire["metadata"]
    assert meta["generateName"] == "web-"
    assert meta["annotations"] == {LAST_CHANGE_TRIGGER_TIME: "2026-01-02T00:00:00Z"}
    assert meta["ownerReferences"][0]["uid"] == "uid-web"
    assert wire["endpoints"][0]["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert wire["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    assert planning.is_ours(msgspec.convert({"metadata": {"name": "x", **meta}}, EndpointSlice))


def test_a_service_being_deleted_keeps_its_slices_true_but_gets_no_new_one() -> None:
    """As while its load balancer is taken down: a pod's change still shows; a deleted slice stays deleted."""
    svc = service()
    slices = carry_out(svc, [pod("a", "10.0.0.1")], [])
    meta = msgspec.structs.replace(svc.metadata, deletion_timestamp="2026-01-02T00:00:00Z")
    going = msgspec.structs.replace(svc, metadata=meta)
    assert len(decide(going, [pod("a", "10.0.0.1", ready=False)], slices).update) == 1
    assert decide(going, [pod("a", "10.0.0.1")], []) == Plan()


def test_a_hand_edited_slice_is_put_right() -> None:
    """An endpoint twice, a foreign address, another port, a lost owner: each is undone, in one write."""
    svc, pods = service(), [pod("a", "10.0.0.1"), pod("b", "10.0.0.2")]
    (right,) = carry_out(svc, pods, [])

    def after(edited: EndpointSlice) -> list[EndpointSlice]:
        assert edited != right
        decided = decide(svc, pods, [edited])
        assert len(decided.update) + len(decided.create) == 1
        return carry_out(svc, pods, [edited])

    replace = msgspec.structs.replace
    stray = replace(right.endpoints[0], addresses=["10.9.9.9"])
    for endpoints in ([*right.endpoints, right.endpoints[0]], [*right.endpoints, stray], right.endpoints[:1]):
        (mended,) = after(replace(right, endpoints=endpoints))
        assert sorted(e.addresses for e in mended.endpoints) == [["10.0.0.1"], ["10.0.0.2"]]
    assert right.ports is not None
    (mended,) = after(replace(right, ports=[replace(right.ports[0], port=9)]))
    assert mended.ports == right.ports
    disowned = replace(right, metadata=replace(right.metadata, owner_references=[]))
    assert decide(svc, pods, [disowned]).delete == [disowned], "one without its owner would never be collected"


def test_two_pods_of_one_address_are_two_endpoints() -> None:
    """As on the host's network."""
    (found,) = carry_out(service(), [pod("a", "192.0.2.1"), pod("b", "192.0.2.1")], [])
    assert [e.target_ref.name for e in found.endpoints if e.target_ref] == ["a", "b"]


def test_a_sidecars_named_port_counts() -> None:
    """An init container that stays is one of the pod's servers."""
    svc = service(ports=[{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}])
    init = {"name": "mesh", "restartPolicy": "Always", "ports": [{"name": "web", "containerPort": 15001}]}
    (found,) = carry_out(svc, [pod("a", "10.0.0.1", initContainers=[init])], [])
    assert [p.port for p in found.ports or []] == [15001]


@pytest.mark.parametrize("most", [0, 1001])
def test_a_slice_holds_one_to_a_thousand_endpoints(most: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 1000"):
        ControllersConfig(max_endpoints_per_slice=most)


def test_a_lowered_limit_splits_a_slice() -> None:
    """The limit is held by moving the surplus; nothing else moves."""
    svc, pods = service(), [pod(f"p{i}", f"10.0.0.{i}") for i in range(1, 6)]
    slices = carry_out(svc, pods, [], most=1000)
    slices = carry_out(svc, pods, slices, most=2)
    assert sorted(len(s.endpoints) for s in slices) == [1, 2, 2]
    assert decide(svc, pods, slices, most=2) == Plan()
