"""Which addresses and node ports a Service claims and lets go of, and what happens when they are taken."""

from __future__ import annotations

import copy
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.errors import InternalError, Invalid
from kubesvc.api.registry import SERVICE
from kubesvc.apiserver import admission
from kubesvc.apiserver.admission import ClaimChange, Cluster, bands
from support.admission import NOW, Claimed, cluster, context, service, store

JSON = dict[str, Any]
HTTP = {"port": 80}


def short(changes: list[ClaimChange]) -> list[str]:
    return [f"{c.action} {c.kind} {c.value}{' dynamic' if c.dynamic else ''}" for c in changes]


# ── bands ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cidr", "first", "upper", "last"),
    [
        pytest.param("10.96.0.0/16", "10.96.0.1", "10.96.1.1", "10.96.255.254", id="/16 keeps 256"),
        pytest.param("10.96.0.0/24", "10.96.0.1", "10.96.0.17", "10.96.0.254", id="/24 keeps 16"),
        pytest.param("10.96.0.0/20", "10.96.0.1", "10.96.1.1", "10.96.15.254", id="/20 keeps 256 too"),
        pytest.param("10.96.0.0/28", "10.96.0.1", "10.96.0.1", "10.96.0.14", id="/28 keeps none"),
        pytest.param("fd00::/112", "fd00::1", "fd00::101", "fd00::ffff", id="IPv6 has no broadcast"),
    ],
)
def test_the_band_of_a_network(cidr: str, first: str, upper: str, last: str) -> None:
    found = bands.of_network(ip_network(cidr))
    assert found == tuple(int(ip_address(a)) for a in (first, upper, last))


def test_the_band_of_the_default_node_ports_keeps_86() -> None:
    assert bands.of_node_ports(30000, 32767) == (30000, 30086, 32767)


@given(
    size=st.integers(1, 300),
    taken=st.sets(st.integers(0, 300)),
    start=st.integers(0, 1000),
)
def test_a_choice_is_free_and_in_the_band_or_there_is_none(size: int, taken: set[int], start: int) -> None:
    band = bands.of_node_ports(0, size - 1)
    found = bands.choose(band, taken.__contains__, lambda n: start % n)
    free = set(range(size)) - taken
    assert found in free if free else found is None
    if found is not None and found < band.upper:
        assert not {n for n in free if n >= band.upper}, "the lower band is for when the upper one is full"


# ── a Service's life ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cluster_ip_is_chosen_above_the_band() -> None:
    new, changes = store(service(ports=[HTTP]))
    assert new["spec"]["clusterIP"] == "10.96.1.1"
    assert new["spec"]["clusterIPs"] == ["10.96.1.1"]
    assert short(changes) == ["claim address 10.96.1.1 dynamic"]


def test_s2_takes_the_next_address_and_s1s_once_it_is_gone() -> None:
    claimed = Claimed()
    s1, changes = store(service("s1", ports=[HTTP]), taken=claimed)
    claimed.values |= {c.value for c in changes}
    s2, _ = store(service("s2", ports=[HTTP]), taken=claimed)
    assert s2["spec"]["clusterIP"] == "10.96.1.2"

    gone = admission.claims(SERVICE, None, s1, context(), claimed)
    assert short(gone) == ["release address 10.96.1.1"]
    claimed.values -= {c.value for c in gone}
    s3, _ = store(service("s3", ports=[HTTP]), taken=claimed)
    assert s3["spec"]["clusterIP"] == s1["spec"]["clusterIP"]


def test_an_address_asked_for_is_claimed_as_it_is() -> None:
    new, changes = store(service(ports=[HTTP], clusterIP="10.96.0.10"))
    assert new["spec"]["clusterIPs"] == ["10.96.0.10"]
    assert short(changes) == ["claim address 10.96.0.10"]


def test_text_7_an_address_asked_for_that_another_has() -> None:
    new, (change,) = store(service(ports=[HTTP], clusterIP="10.96.0.10"))
    assert admission.claim_lost(SERVICE, new, change).message == (
        'Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: '
        "provided IP is already allocated"
    )


def test_text_5_a_node_port_asked_for_that_another_has() -> None:
    new, changes = store(service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    (change,) = [c for c in changes if c.kind == "nodeport"]
    assert short([change]) == ["claim nodeport 30080"]
    assert admission.claim_lost(SERVICE, new, change).message == (
        'Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated'
    )


def test_a_port_the_nodes_use_is_nobodys() -> None:
    """Not chosen, also when nothing else is left; refused to who asks for it; kept by who has it from before."""
    own = Cluster(cluster().service_cidrs, (10248, 10250), own_ports=frozenset((10249, 10250)))
    new, _ = store(service(type="NodePort", ports=[HTTP]), of=context(own))
    assert new["spec"]["ports"][0]["nodePort"] == 10248
    with pytest.raises(InternalError, match="range is full"):
        store(service(type="NodePort", ports=[HTTP]), of=context(own), taken=Claimed({"10248"}))
    asking = service(type="NodePort", ports=[{"port": 80, "nodePort": 10250}], clusterIP="10.96.0.9")
    health = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 10249}
    watched = service(type="LoadBalancer", ports=[{"port": 80, "nodePort": 10248}], clusterIP="10.96.0.9", **health)
    for wanted in (asking, watched):
        with pytest.raises(Invalid, match="provided port is already allocated"):
            store(wanted, of=context(own))
        before, _ = store(wanted, of=context(cluster(node_ports=(10000, 20000))))
        after, changes = store(before, before, of=context(own))
        assert after["spec"]["ports"] == before["spec"]["ports"]
        assert changes == []


@pytest.mark.parametrize("address", ["10.97.0.1", "10.96.0.0", "10.96.255.255"])
def test_an_address_outside_or_at_the_edge_of_the_range_is_refused(address: str) -> None:
    with pytest.raises(Invalid) as caught:
        store(service(ports=[HTTP], clusterIP=address))
    assert caught.value.message == (
        f'Service "web" is invalid: spec.clusterIPs: Invalid value: ["{address}"]: failed to allocate IP {address}: '
        f"the provided IP ({address}) is not in the valid range. The range of valid IPs is 10.96.0.0/16"
    )


def test_a_full_range_says_so() -> None:
    of, claimed = context(cluster("10.96.0.0/29")), Claimed()
    for _ in range(6):
        _, changes = store(service(ports=[HTTP]), of=of, taken=claimed)
        claimed.values |= {c.value for c in changes}
    with pytest.raises(InternalError, match="failed to allocate a serviceIP: range is full"):
        store(service(ports=[HTTP]), of=of, taken=claimed)


def test_a_second_range_is_used_when_the_first_is_full() -> None:
    of, claimed = context(cluster("10.96.0.0/30", "10.97.0.0/24")), Claimed({"10.96.0.1", "10.96.0.2"})
    new, _ = store(service(ports=[HTTP]), of=of, taken=claimed)
    assert new["spec"]["clusterIP"] == "10.97.0.17"


def test_headless_and_external_names_claim_nothing() -> None:
    assert store(service(clusterIP="None"))[1] == []
    assert store(service(type="ExternalName", externalName="example.com"))[1] == []


def test_two_families_two_addresses() -> None:
    of = context(cluster("10.96.0.0/16", "fd00:10:96::/108"))
    new, changes = store(service(ports=[HTTP], ipFamilyPolicy="PreferDualStack"), of=of)
    assert new["spec"]["clusterIPs"] == ["10.96.1.1", "fd00:10:96::101"]
    assert new["spec"]["clusterIP"] == "10.96.1.1"
    assert short(changes) == ["claim address 10.96.1.1 dynamic", "claim address fd00:10:96::101 dynamic"]


def test_a_claim_is_named_by_the_addresss_one_spelling() -> None:
    of = context(cluster("fd00:10:96::/108"))
    new, changes = store(service(ports=[HTTP], clusterIP="FD00:10:96:0::9"), of=of)
    assert new["spec"]["clusterIP"] == "FD00:10:96:0::9"
    assert short(changes) == ["claim address fd00:10:96::9"]


# ── node ports ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "node_ports"),
    [
        pytest.param({"type": "NodePort", "ports": [HTTP]}, [30086], id="one, above the band"),
        pytest.param({"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]},
                     [30086, 30087], id="one each"),
        pytest.param({"type": "NodePort", "ports": [{"name": "u", "port": 53, "protocol": "UDP"},
                                                    {"name": "t", "port": 53}]}, [30086] * 2, id="UDP and TCP share"),
        pytest.param({"type": "NodePort", "ports": [{"name": "u", "port": 53, "protocol": "UDP"},
                                                    {"name": "t", "port": 53, "nodePort": 30053}]}, [30053, 30053],
                     id="… the one given"),
        pytest.param({"type": "LoadBalancer", "ports": [HTTP]}, [30086], id="a load balancer too"),
        pytest.param({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [HTTP]}, [None],
                     id="unless it says no"),
        pytest.param({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False,
                      "ports": [{"port": 80, "nodePort": 30080}]}, [30080], id="but what is asked for is honoured"),
        pytest.param({"type": "ClusterIP", "ports": [HTTP]}, [None], id="a cluster IP has none"),
    ],
)  # fmt: skip
def test_node_ports(spec: JSON, node_ports: list[int | None]) -> None:
    new, changes = store(service(**spec))
    assert [p.get("nodePort") for p in new["spec"]["ports"]] == node_ports
    claimed = [int(c.value) for c in changes if c.kind == "nodeport"]
    assert claimed == list(dict.fromkeys(p for p in node_ports if p))


def test_a_health_check_port_comes_and_goes_with_policy_local() -> None:
    local = service(type="LoadBalancer", externalTrafficPolicy="Local", ports=[HTTP])
    old, changes = store(local)
    assert old["spec"]["healthCheckNodePort"] == 30087
    assert "claim nodeport 30087 dynamic" in short(changes)
    new = copy.deepcopy(old)
    new["spec"]["externalTrafficPolicy"] = "Cluster"
    new, changes = store(new, old)
    assert "healthCheckNodePort" not in new["spec"]
    assert short(changes) == ["release nodeport 30087"]


def test_a_port_that_goes_lets_its_number_go() -> None:
    old, _ = store(service(type="NodePort", ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81}]))
    new = copy.deepcopy(old)
    del new["spec"]["ports"][1]
    assert short(store(new, old)[1]) == ["release nodeport 30087"]


def test_an_update_that_changes_nothing_claims_nothing() -> None:
    old, _ = store(service(type="LoadBalancer", externalTrafficPolicy="Local", ports=[HTTP]))
    assert store(copy.deepcopy(old), old)[1] == []


def test_load_balancer_that_stops_allocating_keeps_what_it_has() -> None:
    old, _ = store(service(type="LoadBalancer", ports=[HTTP]))
    new = service(type="LoadBalancer", allocateLoadBalancerNodePorts=False, ports=[HTTP])
    kept, changes = store(new, old)
    assert kept["spec"]["ports"] == old["spec"]["ports"]
    assert changes == []


def test_deletion_lets_everything_go() -> None:
    old, _ = store(service(type="LoadBalancer", externalTrafficPolicy="Local", ports=[HTTP]))
    assert short(admission.claims(SERVICE, None, old, context(), Claimed())) == [
        "release address 10.96.1.1",
        "release nodeport 30086",
        "release nodeport 30087",
    ]


def test_the_object_that_claims_an_address() -> None:
    assert admission.address_object("10.96.0.10", service("web"), context()) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": "10.96.0.10",
            "creationTimestamp": NOW.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": "default", "name": "web"}},
    }


@given(
    steps=st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
                "local": st.booleans(),
                "ports": st.integers(1, 3),
            }
        ),
        max_size=6,
    ),
    choice=st.integers(0, 5000),
)
def test_what_is_claimed_is_always_what_is_held(steps: list[JSON], choice: int) -> None:
    """Whatever types a Service goes through, claims minus releases are the values in its spec, and nothing leaks."""
    held: set[str] = set()
    old: JSON | None = None
    for step in steps:
        spec: JSON = {
            "type": step["type"],
            "externalName": "example.com",
            "ports": [{"name": f"p{n}", "port": 80 + n} for n in range(step["ports"])],
        }
        if step["type"] in ("NodePort", "LoadBalancer"):
            spec["externalTrafficPolicy"] = "Local" if step["local"] else "Cluster"
        new, changes = store(service(**spec), old, of=context(choose=choice), taken=Claimed(set(held)))
        for change in changes:
            assert (change.value in held) == (change.action == "release")
            held ^= {change.value}
        found = new["spec"]
        expected = {*found.get("clusterIPs", ())} | {str(p["nodePort"]) for p in found["ports"] if "nodePort" in p}
        if "healthCheckNodePort" in found:
            expected.add(str(found["healthCheckNodePort"]))
        assert held == expected
        old = new
    if old is not None:
        assert {c.value for c in admission.claims(SERVICE, None, old, context(), Claimed())} == held
