"""Public names of LoadBalancer Services: who has one, what it is, what is said about it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service, ServiceSpec, ServiceStatus
from kubesvc.api.labels import PUBLIC_HOSTNAME
from kubesvc.api.meta import ObjectMeta
from kubesvc.dns.listing import zone_file
from kubesvc.dns.public import Names, asked, lines, records
from kubesvc.dns.wire import encode_name
from kubesvc.dns.zones import Zones

ZONES = Zones(("cluster.local",), public={"example.com": ()})


def balanced(
    name: str, hostnames: str, *ingress: str, created: str = "2026-01-01T00:00:00Z", type_: str = "LoadBalancer"
) -> Service:
    """A Service that asks for names; ingress that isn't an address is a host name."""
    found = [
        LoadBalancerIngress(ip=one) if one[0].isdigit() or ":" in one else LoadBalancerIngress(hostname=one)
        for one in ingress
    ]
    return Service(
        metadata=ObjectMeta(
            name=name, namespace="default", creation_timestamp=created, annotations={PUBLIC_HOSTNAME: hostnames}
        ),
        spec=ServiceSpec(type=type_),
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=found)),
    )


def names_of(*services: Service) -> Names:
    made = Names(ZONES)
    for one in services:
        made.update(one.key, one)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop.example.com", ["shop.example.com"]),
        (" Shop.Example.com. , *.example.com,,shop.example.com", ["shop.example.com", "*.example.com"]),
        ("", []),
    ],
)
def test_annotation_lists_names(text: str, expected: list[str]) -> None:
    """Commas, spaces, capitals and dots at the end are all right."""
    assert asked(balanced("a", text)) == expected


@pytest.mark.parametrize(
    ("ingress", "expected"),
    [
        (("192.0.2.7",), ["s.example.com. 300 IN A 192.0.2.7"]),
        (
            ("2001:db8::7", "192.0.2.7"),
            ["s.example.com. 300 IN A 192.0.2.7", "s.example.com. 300 IN AAAA 2001:db8::7"],
        ),
        (("lb.cloud.example",), ["s.example.com. 300 IN CNAME lb.cloud.example."]),
        (("lb.cloud.example", "192.0.2.7"), ["s.example.com. 300 IN A 192.0.2.7"]),
        ((), []),
    ],
    ids=["address", "both families", "host name", "an address beats a host name", "pending"],
)
def test_record_to_create_is_a_line_of_a_zone_file(ingress: Sequence[str], expected: list[str]) -> None:
    """A for an address, CNAME for a host name."""
    assert lines("s.example.com", balanced("a", "s.example.com", *ingress)) == expected


def test_no_alias_at_an_apex() -> None:
    """A CNAME there would hide SOA and NS."""
    one = balanced("a", "example.com", "lb.cloud.example")
    assert records(encode_name("example.com"), one, 5, at_apex=True) == []
    assert len(records(encode_name("www.example.com"), one, 5, at_apex=False)) == 1


def test_oldest_service_has_the_name_until_it_no_longer_asks() -> None:
    """Then the next in age; of the same age the first by name."""
    old = balanced("old", "s.example.com", created="2026-01-01T00:00:00Z")
    new = balanced("new", "s.example.com,t.example.com", created="2026-02-01T00:00:00Z")
    twin = balanced("a-twin", "s.example.com", created="2026-02-01T00:00:00Z")
    names = names_of(new, twin, old)
    assert names.holder("s.example.com") == ("default", "old")
    assert names.holder("t.example.com") == ("default", "new")
    assert names.update(old.key, balanced("old", "other.example.com")) == ["s.example.com", "other.example.com"]
    assert names.holder("s.example.com") == ("default", "a-twin")
    names.update(twin.key, None)
    assert names.holder("s.example.com") == ("default", "new")
    assert names.update(new.key, balanced("new", "s.example.com", type_="ClusterIP")) == [
        "s.example.com",
        "t.example.com",
    ]
    assert names.holder("s.example.com") is None
    assert names._claims == {"other.example.com": {("default", "old"): "2026-01-01T00:00:00Z"}}


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (balanced("a", "s.example.com", "192.0.2.7"), [("HostnameServed", "s.example.com A 192.0.2.7")]),
        (
            balanced("a", "s.example.org", "192.0.2.7"),
            [("DNSRecordNeeded", "s.example.org is hosted: s.example.org. 300 IN A 192.0.2.7")],
        ),
        (
            balanced("a", "s.example.org", "lb.cloud.example"),
            [("DNSRecordNeeded", "s.example.org. 300 IN CNAME lb.cloud.example.")],
        ),
        (balanced("a", "example.com", "lb.cloud.example"), [("HostnameAtApex", "no CNAME can be")]),
        (balanced("a", "example.com", "192.0.2.7"), [("HostnameServed", "example.com A 192.0.2.7")]),
        (balanced("a", "held.example.com", "192.0.2.7"), [("HostnameConflict", "belongs to default/holder")]),
        (balanced("a", "held.example.org", "192.0.2.7"), [("HostnameConflict", "belongs to default/holder")]),
        (balanced("a", "s.example.com", type_="NodePort"), [("HostnameIgnored", "this one is NodePort")]),
        (balanced("a", "shop", "192.0.2.7"), [("HostnameInvalid", "'shop': expected a full DNS name")]),
        (balanced("a", "a.*.example.com", "192.0.2.7"), [("HostnameInvalid", "'a.*.example.com'")]),
        (
            balanced("a", "x.svc.cluster.local", "192.0.2.7"),
            [("HostnameInvalid", "in cluster.local, the cluster's own")],
        ),
        (balanced("a", "s.example.com"), []),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_said_about_a_name(service: Service, expected: list[tuple[str, str]]) -> None:
    """One finding a name: a reason, and words that say what to do."""
    holder = balanced("holder", "held.example.com,held.example.org", created="2025-01-01T00:00:00Z")
    found = list(names_of(holder, service).findings(service))
    assert [one.reason for one in found] == [reason for reason, _ in expected]
    for one, (_, words) in zip(found, expected, strict=True):
        assert words in one.message
        assert one.warning is (one.reason not in ("HostnameServed", "DNSRecordNeeded"))


def test_listing_is_a_zone_file() -> None:
    """What is to be created, what is served, and in comments what stands in the way."""
    services = [
        balanced("shop", "shop.example.com,shop.example.org", "192.0.2.7"),
        balanced("cdn", "cdn.example.org", "lb.cloud.example"),
        balanced("late", "shop.example.com", created="2027-01-01T00:00:00Z"),
        balanced("wait", "wait.example.org"),
    ]
    assert list(zone_file(services, ("cluster.local",), ("example.com",))) == [
        "; create these where their domains are hosted",
        "cdn.example.org. 300 IN CNAME lb.cloud.example.  ; default/cdn",
        "shop.example.org. 300 IN A 192.0.2.7  ; default/shop",
        "; served by this cluster",
        "shop.example.com. 300 IN A 192.0.2.7  ; default/shop",
        "; default/late: shop.example.com belongs to default/shop, which asked for it first; "
        "give one of them another name",
        "; default/wait: wait.example.org has no address yet: the Service's load balancer is pending",
    ]
    assert list(zone_file([], ("cluster.local",), ())) == [
        "; no Service asks for a public name (annotation kubesvc.dev/hostname)"
    ]
