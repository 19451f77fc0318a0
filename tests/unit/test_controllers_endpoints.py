"""The legacy Endpoints object follows the pods."""

from __future__ import annotations

from typing import Any

import msgspec

from kubesvc.api.core import Endpoints, Service
from kubesvc.api.pods import Pod
from kubesvc.controllers.endpoints.plan import MOST, plan, subsets
from kubesvc.controllers.slim import shown as shown_as
from support.objects import pod, service


def applied(svc: Service, pods: list[Pod], found: Endpoints | None) -> Endpoints | None:
    """The object after the plan; None when nothing is to be written."""
    tree = plan(svc, pods, shown_as(found) if found else None, None)
    if tree is None:
        return None
    meta = {k: v for k, v in tree["metadata"].items() if k not in ("labels", "annotations")}
    for field in ("labels", "annotations"):
        meta[field] = {k: v for k, v in tree["metadata"].get(field, {}).items() if v is not None}
    return msgspec.convert({"metadata": meta, "subsets": tree["subsets"]}, Endpoints)


def shown(found: Endpoints | None) -> list[Any]:
    assert found is not None
    return [
        ([a.ip for a in s.addresses], [a.ip for a in s.not_ready_addresses], [(p.name, p.port) for p in s.ports])
        for s in found.subsets
    ]


def test_an_endpoints_objects_life() -> None:
    """Created empty, then a ready and a waiting pod, then one going: written only when something changed."""
    svc = service(labels={"team": "shop"})
    found = applied(svc, [], None)
    assert found is not None
    assert found.metadata.labels == {"team": "shop", "endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    assert shown(found) == []
    assert applied(svc, [], found) is None

    pods = [pod("b", "10.0.0.2"), pod("a", "10.0.0.1"), pod("c", "10.0.0.3", ready=False)]
    found = applied(svc, pods, found)
    assert shown(found) == [(["10.0.0.1", "10.0.0.2"], ["10.0.0.3"], [("http", 8080)])]
    assert applied(svc, pods, found) is None

    found = applied(svc, [pod("a", "10.0.0.1"), pod("b", "10.0.0.2", going=True)], found)
    assert shown(found) == [(["10.0.0.1"], [], [("http", 8080)])]


def test_only_the_primary_family_is_shown() -> None:
    packed, _ = subsets(service(ipFamilies=["IPv6", "IPv4"]), [pod("a", ["10.0.0.1", "fd00::1"])])
    assert [[a.ip for a in s.addresses] for s in packed] == [["fd00::1"]]


def test_beyond_a_thousand_addresses_those_not_ready_are_left_out_first() -> None:
    pods = [pod(f"p{i}", f"10.0.{i // 250}.{i % 250 + 1}", ready=i >= 10) for i in range(MOST + 5)]
    packed, truncated = subsets(service(), pods)
    assert truncated
    assert sum(len(s.addresses) for s in packed) == MOST - 5
    assert sum(len(s.not_ready_addresses) for s in packed) == 5
    found = applied(service(), pods, None)
    assert found is not None
    assert found.metadata.annotations == {"endpoints.kubernetes.io/over-capacity": "truncated"}


def test_truncation_takes_from_each_subset_in_proportion() -> None:
    """Two versions listen on two ports, three to one: each keeps its share of the thousand."""
    svc = service(ports=[{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}])

    def listening(number: int, port: int) -> Pod:
        ports = [{"name": "web", "containerPort": port, "protocol": "TCP"}]
        ip = f"10.{port % 250}.{number // 250}.{number % 250 + 1}"
        return pod(f"p{port}-{number}", ip, containers=[{"name": "c", "ports": ports}])

    pods = [listening(n, 8080) for n in range(1500)] + [listening(n, 9090) for n in range(500)]
    packed, truncated = subsets(svc, pods)
    assert truncated
    assert {s.ports[0].port: len(s.addresses) for s in packed} == {8080: 750, 9090: 250}


def test_a_pod_that_names_none_of_the_ports_is_left_out() -> None:
    svc = service(ports=[{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}])
    assert subsets(svc, [pod("a", "10.0.0.1")]) == ([], False)
    headless = service(clusterIP="None", ports=[])
    assert [len(s.addresses) for s in subsets(headless, [pod("a", "10.0.0.1")])[0]] == [1]


def test_terminating_pods_are_shown_where_what_is_not_ready_is_published() -> None:
    svc = service(publishNotReadyAddresses=True)
    packed, _ = subsets(svc, [pod("a", "10.0.0.1", going=True), pod("b", "10.0.0.2", ready=False)])
    assert [[a.ip for a in s.addresses] for s in packed] == [["10.0.0.1", "10.0.0.2"]]


def test_nodes_are_not_asked_for() -> None:
    """Unlike slices, Endpoints show a pod on a node that isn't known yet."""
    packed, _ = subsets(service(), [pod("a", "10.0.0.1", node="n9")])
    assert [[a.ip for a in s.addresses] for s in packed] == [["10.0.0.1"]]
