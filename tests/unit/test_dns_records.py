"""What a Service means in DNS."""

from __future__ import annotations

import dns.name
import dns.rdata
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.dns import wire
from kubesvc.dns.records import dashed, service_records, undashed
from support.dns_zone import endpoint, endpoint_slice, service

ZONE = wire.encode_name("cluster.local")
SVC = "default.svc.cluster.local."


def shown(one: Service, *slices: EndpointSlice) -> list[str]:
    """The records of a Service as "name TYPE data", read by dnspython."""
    found = service_records(one, slices, ZONE, 5)
    assert all(record.ttl == 5 for record in found)
    assert len(found) == len(set(found))
    return sorted(
        f"{dns.name.from_wire(r.name, 0)[0]} {dns.rdatatype.to_text(dns.rdatatype.RdataType.make(r.type))} "
        f"{dns.rdata.from_wire('IN', r.type, r.data, 0, len(r.data))}"
        for r in found
    )


def test_cluster_ip_service_has_its_address_its_ports_and_the_way_back() -> None:
    """A ClusterIP Service: A, SRV for all ports and for each named one, PTR."""
    assert shown(service("web", "10.96.0.20", ports=[("http", "TCP", 80), ("dns", "UDP", 53)])) == [
        "20.0.96.10.in-addr.arpa. PTR web." + SVC,
        f"_dns._udp.web.{SVC} SRV 0 100 53 web.{SVC}",
        f"_http._tcp.web.{SVC} SRV 0 100 80 web.{SVC}",
        f"web.{SVC} A 10.96.0.20",
        f"web.{SVC} SRV 0 50 53 web.{SVC}",
        f"web.{SVC} SRV 0 50 80 web.{SVC}",
    ]


def test_unnamed_port_has_no_name_of_its_own() -> None:
    """An unnamed port appears under the Service's name alone."""
    found = shown(service("web", "10.96.0.20", ports=[("", "TCP", 80)]))
    assert f"web.{SVC} SRV 0 100 80 web.{SVC}" in found
    assert not [line for line in found if line.startswith("_")]


def test_dual_stack_service_has_both_families() -> None:
    """Each cluster IP is an address of the name, each with its reverse name."""
    found = shown(service("dual", "10.96.0.21", "fd00:96::21"))
    assert f"dual.{SVC} A 10.96.0.21" in found
    assert f"dual.{SVC} AAAA fd00:96::21" in found
    assert len([line for line in found if " PTR " in line]) == 2


def test_endpoints_of_a_cluster_ip_service_are_found_by_name_too() -> None:
    """As CoreDNS does: host.svc.ns.svc also when the Service has a cluster IP, for ready endpoints."""
    found = shown(
        service("web", "10.96.0.20"),
        endpoint_slice("web", endpoint("10.244.1.9"), endpoint("10.244.1.8", ready=False)),
    )
    assert f"10-244-1-9.web.{SVC} A 10.244.1.9" in found
    assert f"9.1.244.10.in-addr.arpa. PTR 10-244-1-9.web.{SVC}" in found
    assert not [line for line in found if "10-244-1-8" in line]


def test_headless_service_is_its_ready_endpoints() -> None:
    """A headless Service: every ready endpoint's address, a name and an SRV for each; weight is 100 shared out."""
    found = shown(
        service("db", headless=True),
        endpoint_slice("db", endpoint("10.244.1.5", "db-0"), endpoint("10.244.3.7", ready=False)),
        endpoint_slice("db", endpoint("10.244.2.6"), suffix="b"),
    )
    assert found == sorted(
        [
            f"db.{SVC} A 10.244.1.5",
            f"db.{SVC} A 10.244.2.6",
            f"db-0.db.{SVC} A 10.244.1.5",
            f"10-244-2-6.db.{SVC} A 10.244.2.6",
            f"db.{SVC} SRV 0 50 8080 db-0.db.{SVC}",
            f"db.{SVC} SRV 0 50 8080 10-244-2-6.db.{SVC}",
            f"db-0.db.{SVC} SRV 0 100 8080 db-0.db.{SVC}",
            f"10-244-2-6.db.{SVC} SRV 0 100 8080 10-244-2-6.db.{SVC}",
            f"_http._tcp.db.{SVC} SRV 0 50 8080 db-0.db.{SVC}",
            f"_http._tcp.db.{SVC} SRV 0 50 8080 10-244-2-6.db.{SVC}",
            f"5.1.244.10.in-addr.arpa. PTR db-0.db.{SVC}",
            f"6.2.244.10.in-addr.arpa. PTR 10-244-2-6.db.{SVC}",
        ]
    )


def test_srv_weight_is_never_below_one() -> None:
    """More than a hundred endpoints still weigh one each."""
    many = [endpoint(f"10.244.{n // 250}.{n % 250 + 1}") for n in range(150)]
    lines = shown(service("db", headless=True), endpoint_slice("db", *many))
    weights = {line.split()[3] for line in lines if line.startswith("_http")}
    assert weights == {"1"}


def test_dual_stack_endpoint_with_a_hostname_is_one_target() -> None:
    """Two slices, one a family, name the same host: one SRV, two addresses."""
    found = shown(
        service("db", headless=True),
        endpoint_slice("db", endpoint("10.244.1.5", "db-0")),
        endpoint_slice("db", endpoint("fd00::5", "db-0"), suffix="v6"),
    )
    assert [line for line in found if line.startswith("_http")] == [f"_http._tcp.db.{SVC} SRV 0 100 8080 db-0.db.{SVC}"]
    assert [line for line in found if line.startswith("db-0")] == [
        f"db-0.db.{SVC} A 10.244.1.5",
        f"db-0.db.{SVC} AAAA fd00::5",
        f"db-0.db.{SVC} SRV 0 100 8080 db-0.db.{SVC}",
    ]


@pytest.mark.parametrize(
    "nothing",
    [
        pytest.param(service("empty", headless=True), id="headless without endpoints"),
        pytest.param(service("pending"), id="not yet given an address"),
        pytest.param(service("number", external="192.0.2.1"), id="alias of an address"),
        pytest.param(service("odd", external="a..b"), id="alias of what isn't a name"),
        pytest.param(service("odd", external="."), id="alias of the root"),
        pytest.param(service("x" * 64, "10.96.0.9"), id="name too long for DNS"),
    ],
)
def test_service_that_resolves_to_nothing_has_no_records(nothing: Service) -> None:
    """No records, so that its name doesn't exist."""
    assert shown(nothing) == []


@pytest.mark.parametrize("target", ["www.Example.com", "www.example.com."])
def test_external_name_is_an_alias(target: str) -> None:
    """ExternalName: one CNAME, in lower case, with or without the dot at the end."""
    assert shown(service("outside", external=target)) == [f"outside.{SVC} CNAME www.example.com."]


def test_kube_dns_is_the_zones_name_server() -> None:
    """The cluster IPs of kube-dns are also those of ns.dns.ZONE, the name in the SOA."""
    assert "ns.dns.cluster.local. A 10.96.0.10" in shown(service("kube-dns", "10.96.0.10", namespace="kube-system"))


@given(st.ip_addresses())
def test_a_dashed_address_reads_back(address: object) -> None:
    """Any address survives being a label."""
    packed = address.packed  # type: ignore[attr-defined]
    assert undashed(dashed(packed).encode()) == packed


@pytest.mark.parametrize("label", [b"web", b"1-2-3", b"1-2-3-256", b"1.2.3.4", b"fd00::1", b"fd00--1%eth0", b"", b"-"])
def test_what_isnt_a_dashed_address_is_none(label: bytes) -> None:
    """Only an address with dashes stands for one."""
    assert undashed(label) is None
