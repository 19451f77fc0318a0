"""Which frontends there are, where each leads, and that a change gives only what it touched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.discovery import EndpointSlice
from kubesvc.proxy.backend import Changes, Kind
from kubesvc.proxy.balance import arrange
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import UDP, Masquerade, pack, show_endpoint, split_key, unpack
from support.proxy import NODE, NODE_IP, endpoint, service, slice_of

TWO = ("10.244.0.5", "10.244.1.5")


def fresh(*, proxy_name: str = "", zone: str = "") -> Frontends:
    return Frontends(Locality(NODE, zone), [pack(NODE_IP)], proxy_name=proxy_name)


def put(frontends: Frontends, found: Any) -> None:
    if isinstance(found, EndpointSlice):
        frontends.set_slice(None, found)
    else:
        frontends.set_service(found.key, found)


def decided(*objects: Any, **options: Any) -> Changes:
    frontends = fresh(**options)
    for found in objects:
        put(frontends, found)
    return frontends.take()


def shown(changes: Changes) -> dict[str, list[str] | str | None]:
    """address:port -> endpoints, the refusal's name, or None for gone."""
    found: dict[str, list[str] | str | None] = {}
    for key, frontend in changes.frontends.items():
        address, _, port = split_key(key)
        at = f"{unpack(address)}:{port}"
        if frontend is None:
            found[at] = None
        elif frontend.refusal:
            found[at] = frontend.refusal.name
        else:
            found[at] = sorted(map(show_endpoint, frontend.endpoints))
    return found


WEB = ["10.244.0.5:8080", "10.244.1.5:8080"]


def test_a_service_answers_on_every_address_it_has() -> None:
    """Cluster IP, node port, external IPs and load balancer IPs lead to the same endpoints."""
    web = service(
        type="LoadBalancer",
        ports=[{"port": 80, "nodePort": 30080}],
        externalIPs=["203.0.113.7"],
        status_ips=["172.29.7.200"],
    )
    changes = decided(web, slice_of(*TWO))
    assert shown(changes) == {
        "10.96.0.10:80": WEB,
        "203.0.113.7:80": WEB,
        "172.29.7.200:80": WEB,
        f"{NODE_IP}:30080": WEB,
    }
    assert {f.kind: f.masquerade for f in changes.frontends.values() if f} == {
        Kind.CLUSTER_IP: Masquerade.OFF_CLUSTER,
        Kind.EXTERNAL_IP: Masquerade.ALWAYS,
        Kind.LOAD_BALANCER: Masquerade.ALWAYS,
        Kind.NODE_PORT: Masquerade.ALWAYS,
    }
    assert changes.service_ips == {pack("10.96.0.10"): True}


@pytest.mark.parametrize(
    "skipped",
    [
        pytest.param(service(cluster_ip="None"), id="headless"),
        pytest.param(service(cluster_ip=""), id="no address yet"),
        pytest.param(service(type="ExternalName", externalName="example.org"), id="ExternalName"),
        pytest.param(service(labels={"service.kubernetes.io/service-proxy-name": "other"}), id="another proxy's"),
    ],
)
def test_services_that_are_not_ours_answer_nowhere(skipped: Any) -> None:
    """A Service without a cluster IP, or of another proxy, has no frontend."""
    assert not decided(skipped, slice_of(*TWO))


def test_a_named_proxy_takes_the_services_that_name_it() -> None:
    """The label service-proxy-name picks the proxy."""
    named = service(labels={"service.kubernetes.io/service-proxy-name": "ours"})
    assert shown(decided(named, slice_of(*TWO), proxy_name="ours")) == {"10.96.0.10:80": WEB}
    assert not decided(service(), slice_of(*TWO), proxy_name="ours")


@pytest.mark.parametrize(
    ("ingress", "answers"),
    [
        ({"ip": "172.29.7.200"}, True),
        ({"ip": "172.29.7.200", "ipMode": "VIP"}, True),
        ({"ip": "172.29.7.200", "ipMode": "Proxy"}, False),
        ({"hostname": "lb.example.org"}, False),
    ],
)
def test_a_load_balancer_address_is_programmed_unless_it_is_a_proxys(ingress: dict[str, str], answers: bool) -> None:
    """ipMode nil and VIP are programmed, Proxy and hostnames are not."""
    found = shown(decided(service(type="LoadBalancer", status_ips=[ingress]), slice_of(*TWO)))
    assert ("172.29.7.200:80" in found) is answers


def test_ports_are_matched_by_name_and_protocol() -> None:
    """A port finds the slice port with its name and its protocol, in any slice."""
    dns = service(
        ports=[{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "metrics", "port": 9153, "protocol": "TCP"}]
    )
    one = slice_of("10.244.0.5", ports=[{"name": "dns", "port": 1053, "protocol": "UDP"}], name="a")
    other = slice_of("10.244.0.6", ports=[{"name": "metrics", "port": 9999}], name="b")
    changes = decided(dns, one, other)
    assert shown(changes) == {"10.96.0.10:53": ["10.244.0.5:1053"], "10.96.0.10:9153": ["10.244.0.6:9999"]}
    assert {split_key(k)[1] for k in changes.frontends} == {6, UDP}


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param(
            [endpoint("10.244.0.5"), endpoint("10.244.0.6", state="starting")], ["10.244.0.5"], id="ready only"
        ),
        pytest.param([endpoint("10.244.0.5", state="nil")], ["10.244.0.5"], id="nil conditions are ready"),
        pytest.param(
            [endpoint("10.244.0.5"), endpoint("10.244.0.6", state="draining")], ["10.244.0.5"], id="draining waits"
        ),
        pytest.param(
            [endpoint("10.244.0.5", state="starting"), endpoint("10.244.0.6", state="draining")],
            ["10.244.0.6"],
            id="draining serves when none is ready",
        ),
        pytest.param([endpoint("10.244.0.6", state="dead")], "REJECT", id="dead never serves"),
        pytest.param([], "REJECT", id="none"),
        pytest.param(
            [endpoint("10.244.0.5", state="draining"), endpoint("10.244.0.5")],
            ["10.244.0.5"],
            id="duplicates: ready wins",
        ),
        pytest.param([endpoint("not-an-address"), endpoint("10.244.0.5")], ["10.244.0.5"], id="rubbish is left out"),
    ],
)
def test_which_endpoints_serve(endpoints: list[dict[str, Any]], expected: list[str] | str) -> None:
    """Ready ones; with none of those, the ones that are draining; with none of those, refusal."""
    want = expected if isinstance(expected, str) else [f"{e}:8080" for e in expected]
    assert shown(decided(service(), slice_of(*endpoints)))["10.96.0.10:80"] == want


def _hinted(address: str, *, zones: tuple[str, ...] = (), nodes: tuple[str, ...] = ()) -> dict[str, Any]:
    hints = {"forZones": [{"name": z} for z in zones], "forNodes": [{"name": n} for n in nodes]}
    return endpoint(address, hints=hints)


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param(
            [_hinted("10.244.0.5", zones=("a",)), _hinted("10.244.0.6", zones=("b",))], ["10.244.0.5"], id="zone"
        ),
        pytest.param(
            [_hinted("10.244.0.5", zones=("a",)), endpoint("10.244.0.6")],
            ["10.244.0.5", "10.244.0.6"],
            id="one unhinted",
        ),
        pytest.param(
            [_hinted("10.244.0.5", zones=("b",)), _hinted("10.244.0.6", zones=("c",))],
            ["10.244.0.5", "10.244.0.6"],
            id="none for this zone",
        ),
        pytest.param(
            [
                _hinted("10.244.0.5", zones=("a",), nodes=("node9",)),
                _hinted("10.244.0.6", zones=("b",), nodes=(NODE,)),
            ],
            ["10.244.0.6"],
            id="node before zone",
        ),
        pytest.param(
            [
                _hinted("10.244.0.5", zones=("a",), nodes=("node9",)),
                _hinted("10.244.0.6", zones=("b",), nodes=("node8",)),
            ],
            ["10.244.0.5"],
            id="no node hint for here: zone",
        ),
    ],
)
def test_hints_narrow_the_cluster_set(endpoints: list[dict[str, Any]], expected: list[str]) -> None:
    """All ready endpoints hinted and one for here: those; else the next rule."""
    found = shown(decided(service(), slice_of(*endpoints), zone="a"))
    assert found["10.96.0.10:80"] == [f"{e}:8080" for e in expected]


def test_moving_to_another_zone_decides_again() -> None:
    """The node's zone label is read whenever it changes."""
    frontends = fresh(zone="a")
    put(frontends, service())
    put(frontends, slice_of(_hinted("10.244.0.5", zones=("a",)), _hinted("10.244.0.6", zones=("b",))))
    frontends.take()
    frontends.set_zone("b")
    assert shown(frontends.take()) == {"10.96.0.10:80": ["10.244.0.6:8080"]}


def test_internal_policy_local_drops_where_there_is_no_local_endpoint() -> None:
    """Local endpoints alone; endpoints only elsewhere: drop; none anywhere: reject."""
    web = service(internalTrafficPolicy="Local")
    here, there = endpoint("10.244.0.5", node=NODE), endpoint("10.244.1.5")
    assert shown(decided(web, slice_of(here, there))) == {"10.96.0.10:80": ["10.244.0.5:8080"]}
    assert shown(decided(web, slice_of(there))) == {"10.96.0.10:80": "DROP"}
    assert shown(decided(web, slice_of())) == {"10.96.0.10:80": "REJECT"}


def test_a_change_gives_only_what_it_touched() -> None:
    """Of many Services, a slice's change gives its own Service's frontends; no difference gives nothing."""
    frontends = fresh()
    for number in range(50):
        put(frontends, service(f"s{number}", f"10.96.1.{number}"))
        put(frontends, slice_of("10.244.0.5", owner=f"s{number}"))
    assert len(frontends.take().frontends) == 50
    before = slice_of("10.244.0.5", owner="s7")
    after = slice_of("10.244.0.6", owner="s7")
    frontends.set_slice(before, after)
    assert shown(frontends.take()) == {"10.96.1.7:80": ["10.244.0.6:8080"]}
    frontends.set_slice(after, after)
    assert not frontends.take()


def test_deleting_a_service_takes_all_of_it_away() -> None:
    """Frontends, cluster IP and local endpoints go with the Service; its slices may go later."""
    frontends = fresh()
    found = slice_of(endpoint("10.244.0.5", node=NODE))
    put(frontends, service())
    put(frontends, found)
    assert frontends.take().local_endpoints == {pack("10.244.0.5"): True}
    frontends.set_service(("default", "web"), None)
    gone = frontends.take()
    assert shown(gone) == {"10.96.0.10:80": None}
    assert gone.service_ips == {pack("10.96.0.10"): False}
    assert gone.local_endpoints == {pack("10.244.0.5"): False}
    frontends.set_slice(found, None)
    assert not frontends.take()
    assert not frontends.everything()


def test_a_slice_that_changes_owner_moves_its_endpoints() -> None:
    """The label kubernetes.io/service-name may change."""
    frontends = fresh()
    put(frontends, service("a", "10.96.0.1"))
    put(frontends, service("b", "10.96.0.2"))
    first = slice_of("10.244.0.5", owner="a", name="x")
    put(frontends, first)
    frontends.take()
    frontends.set_slice(first, slice_of("10.244.0.5", owner="b", name="x"))
    assert shown(frontends.take()) == {"10.96.0.1:80": "REJECT", "10.96.0.2:80": ["10.244.0.5:8080"]}


def test_two_services_claiming_one_address_take_turns() -> None:
    """The surer kind wins; when it goes, the other takes over; nothing is lost on the way."""
    frontends = fresh()
    put(frontends, service("thief", "10.96.0.2", externalIPs=["10.96.0.1"]))
    put(frontends, slice_of("10.244.0.6", owner="thief"))
    assert shown(frontends.take())["10.96.0.1:80"] == ["10.244.0.6:8080"]
    put(frontends, service("owner", "10.96.0.1"))
    put(frontends, slice_of("10.244.0.5", owner="owner"))
    assert shown(frontends.take()) == {"10.96.0.1:80": ["10.244.0.5:8080"]}
    frontends.set_slice(slice_of("10.244.0.6", owner="thief"), slice_of("10.244.0.7", owner="thief"))
    assert shown(frontends.take()) == {"10.96.0.2:80": ["10.244.0.7:8080"]}
    frontends.set_service(("default", "owner"), None)
    assert shown(frontends.take()) == {"10.96.0.1:80": ["10.244.0.7:8080"]}


def test_both_families_are_served_from_their_own_slices() -> None:
    """A dual-stack Service has a frontend in each family, fed by slices of that family."""
    dual = service(clusterIPs=["10.96.0.10", "fd00:96::10"])
    six = slice_of("fd00:10:244::5", name="web-6", family="IPv6")
    assert shown(decided(dual, slice_of("10.244.0.5"), six)) == {
        "10.96.0.10:80": ["10.244.0.5:8080"],
        "fd00:96::10:80": ["[fd00:10:244::5]:8080"],
    }


ENDPOINTS = st.lists(st.sampled_from([bytes([n]) * 8 for n in range(12)]), unique=True).map(tuple)


@given(ENDPOINTS, ENDPOINTS)
def test_endpoints_stay_in_their_slots(before: tuple[bytes, ...], wanted: tuple[bytes, ...]) -> None:
    """Arranging gives exactly the wanted endpoints, and moves no more of them than there are holes."""
    after = arrange(before, wanted)
    assert sorted(after) == sorted(wanted)
    moved = sum(1 for i, e in enumerate(after) if e in before and before.index(e) != i)
    assert moved <= max(0, len(before) - len(wanted))
