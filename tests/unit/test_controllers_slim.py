"""What the caches keep decides as the whole object would, in less memory."""

from __future__ import annotations

import msgspec

from kubesvc.api.core import Endpoints, EndpointSubset
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import BALANCE, WEIGHT, ZONE
from kubesvc.controllers.endpoints.plan import subsets
from kubesvc.controllers.endpointslice.controller import endpoint_facts
from kubesvc.controllers.endpointslice.members import members
from kubesvc.controllers.endpointslice.plan import Plan, plan, tree
from kubesvc.controllers.slim import digest, once, shown, slim_pod, slim_service, slim_slice
from support.objects import make, node, pod, service

NODES = {"n1": node("n1", {ZONE: "a"})}
SIDECAR = {"name": "mesh", "restartPolicy": "Always", "ports": [{"name": "web", "containerPort": 15001}]}
PORTS = [{"name": "web", "port": 80, "protocol": "TCP", "targetPort": "web"}, {"name": "x", "port": 81}]
PODS = [
    pod("a", ["10.0.0.1", "fd00::1"], hostname="h", subdomain="web", initContainers=[SIDECAR]),
    pod("b", "10.0.0.2", ready=False, containers=[{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]),
    pod("c", "10.0.0.3", going=True),
    pod("d", "10.0.0.4", phase="Failed"),
    pod("e", "10.0.0.5", meta={"annotations": {WEIGHT: "7", "note": "long"}}),
]
WEB = service(
    ports=PORTS,
    ipFamilies=["IPv4", "IPv6"],
    trafficDistribution="PreferSameNode",
    labels={"team": "shop"},
    annotations={BALANCE: "weighted"},
)


def test_slim_objects_have_the_same_members() -> None:
    """Slices, Endpoints and what wakes a Service are the same from slim pods and Services as from whole ones."""
    slim = [slim_pod(p) for p in PODS]
    assert members(slim_service(WEB), slim, NODES) == members(WEB, PODS, NODES)
    assert subsets(slim_service(WEB), slim) == subsets(WEB, PODS)
    assert [endpoint_facts(p) for p in slim] == [endpoint_facts(p) for p in PODS]


def test_a_slim_slice_is_found_to_be_right() -> None:
    """What was written, seen through the cache, leads to no second write."""
    groups = members(WEB, PODS, NODES).groups
    made = [
        slim_slice(make(EndpointSlice, f"web-{n}", wire["metadata"], **{k: wire[k] for k in wire if k != "metadata"}))
        for n, wire in enumerate(tree(WEB, draft, "2026-01-02T00:00:00Z") for draft in plan(WEB, groups, []).create)
    ]
    assert len(made) > 1
    assert plan(slim_service(WEB), groups, made) == Plan()
    assert made[0].metadata.annotations == {}, "the trigger's time is written, never read"


def test_equal_values_are_kept_once() -> None:
    first, second = (slim_pod(pod("a", "10.0.0.1", node="node-with-a-name")) for _ in range(2))
    assert first.spec.node_name is second.spec.node_name
    assert first.metadata.uid is second.metadata.uid
    assert once(EndpointSubset()) is once(EndpointSubset())


def test_endpoints_are_told_apart_by_their_digest() -> None:
    """A digest of what is stored equals that of what is planned."""
    packed, _ = subsets(WEB, PODS)
    stored = msgspec.convert({"metadata": {"name": "web"}, "subsets": msgspec.to_builtins(packed)}, Endpoints)
    assert shown(stored).digest == digest(packed)
    assert digest(packed) != digest(packed[:-1])
