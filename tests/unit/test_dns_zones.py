"""Several zones: which one a name is in, what each has, and when its serial moves."""

from __future__ import annotations

import ipaddress

import dns.name
import dns.rcode
import pytest

from kubesvc.dns import wire
from kubesvc.dns.answers import Alias, Answers
from kubesvc.dns.records import Record
from kubesvc.dns.settings import BadSetting, Settings
from kubesvc.dns.zones import reverse_origins
from support.dns_zone import ask, endpoint, endpoint_slice, new_zone, put, service, take, texts

PUBLIC = {"example.com": (), "example.net": ("ns1.example.org", "ns2.example.org")}
SVC = "default.svc.cluster.local."


def a(name: str, address: str) -> Record:
    return Record(wire.encode_name(name), wire.A, ipaddress.ip_address(address).packed, 5)


def cname(name: str, target: str) -> Record:
    return Record(wire.encode_name(name), wire.CNAME, wire.encode_name(target), 5)


def publish(answers: Answers, name: str, *records: Record) -> None:
    answers.publish(wire.encode_name(name), records)


@pytest.fixture
def answers() -> Answers:
    networks = [ipaddress.ip_network("10.96.0.0/16"), ipaddress.ip_network("10.244.0.0/16")]
    made = new_zone(networks=networks, others=("corp.internal",), public=PUBLIC)
    put(made, service("web", "10.96.0.20"), endpoint_slice("web", endpoint("10.244.1.9")))
    put(made, service("kube-dns", "10.96.0.10", namespace="kube-system"))
    put(made, service("alias", external="web.default.svc.corp.internal"))
    publish(made, "shop.example.com", a("shop.example.com", "192.0.2.7"))
    publish(made, "*.shop.example.com", a("*.shop.example.com", "192.0.2.8"))
    publish(made, "cdn.example.com", cname("cdn.example.com", "lb.cloud.example"))
    publish(made, "*.cdn.example.com", cname("*.cdn.example.com", "lb.cloud.example"))
    publish(made, "a.b.example.com", a("a.b.example.com", "192.0.2.9"))
    publish(made, "example.net", a("example.net", "192.0.2.10"))
    made.set_serial(100)
    return made


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.default.svc.corp.internal.", "A", ["A 10.96.0.20"]),
        ("_http._tcp.web.default.svc.corp.internal.", "SRV", ["SRV 0 100 80 web.default.svc.corp.internal."]),
        ("10-244-1-9.web.default.svc.corp.internal.", "A", ["A 10.244.1.9"]),
        ("10-0-0-1.default.pod.corp.internal.", "A", ["A 10.0.0.1"]),
        ("dns-version.corp.internal.", "TXT", ['TXT "1.1.0"']),
        ("corp.internal.", "NS", ["NS ns.dns.corp.internal."]),
        ("ns.dns.corp.internal.", "A", ["A 10.96.0.10"]),
        ("20.0.96.10.in-addr.arpa.", "PTR", [f"PTR web.{SVC}"]),
        (f"alias.{SVC}", "A", ["A 10.96.0.20", "CNAME web.default.svc.corp.internal."]),
        ("shop.example.com.", "A", ["A 192.0.2.7"]),
        ("any.shop.example.com.", "A", ["A 192.0.2.8"]),
        ("two.labels.shop.example.com.", "A", ["A 192.0.2.8"]),
        ("any.cdn.example.com.", "CNAME", ["CNAME lb.cloud.example."]),
        ("example.com.", "NS", [f"NS ns.dns.{SVC.split('.', 2)[2]}"]),
        ("example.net.", "A", ["A 192.0.2.10"]),
        ("example.net.", "NS", ["NS ns1.example.org.", "NS ns2.example.org."]),
    ],
)
def test_name_is_answered_in_its_zone(answers: Answers, name: str, kind: str, expected: list[str]) -> None:
    """Every zone of the cluster has every name; a public one what was published, wildcards too."""
    assert texts(ask(answers, name, kind)) == expected


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "origin"),
    [
        ("gone.default.svc.corp.internal.", "A", "NXDOMAIN", "corp.internal."),
        ("web.default.svc.corp.internal.", "AAAA", "NOERROR", "corp.internal."),
        ("default.svc.corp.internal.", "A", "NOERROR", "corp.internal."),
        ("shop.example.com.", "AAAA", "NOERROR", "example.com."),
        ("any.shop.example.com.", "AAAA", "NOERROR", "example.com."),
        ("b.example.com.", "A", "NOERROR", "example.com."),
        ("c.b.example.com.", "A", "NXDOMAIN", "example.com."),
        ("gone.example.com.", "A", "NXDOMAIN", "example.com."),
        ("example.com.", "A", "NOERROR", "example.com."),
        ("gone.example.net.", "A", "NXDOMAIN", "example.net."),
        ("9.9.96.10.in-addr.arpa.", "PTR", "NXDOMAIN", "96.10.in-addr.arpa."),
        ("1.244.10.in-addr.arpa.", "PTR", "NOERROR", "244.10.in-addr.arpa."),
    ],
)
def test_negative_answer_carries_its_own_zones_soa(
    answers: Answers, name: str, kind: str, rcode: str, origin: str
) -> None:
    """NODATA or NXDOMAIN, and the SOA that the zone's apex has."""
    reply = ask(answers, name, kind)
    assert dns.rcode.to_text(reply.rcode()) == rcode
    (authority,) = reply.authority
    assert authority.name == dns.name.from_text(origin)
    assert authority[0] == ask(answers, origin, "SOA").answer[0][0]


@pytest.mark.parametrize("name", ["cdn.example.com.", "any.cdn.example.com."])
@pytest.mark.parametrize("kind", [wire.A, wire.AAAA, wire.TXT])
def test_public_alias_is_followed_for_every_type(answers: Answers, name: str, kind: int) -> None:
    """The balancer's host name is somebody else's to answer."""
    found = answers.find(wire.question(wire.encode_name(name), kind))
    assert isinstance(found, Alias)
    assert found.target == wire.encode_name("lb.cloud.example")


def test_name_that_is_no_longer_published_is_gone(answers: Answers) -> None:
    """At the apex too, where SOA and NS stay."""
    for name in ("shop.example.com", "*.shop.example.com", "example.net"):
        publish(answers, name)
    assert ask(answers, "shop.example.com").rcode() == dns.rcode.NXDOMAIN
    assert texts(ask(answers, "example.net")) == []
    assert len(texts(ask(answers, "example.net", "NS"))) == 2


def test_serial_moves_with_its_zone_alone(answers: Answers) -> None:
    """A Service moves the cluster's zones and the reverse ones; a public name its own zone."""

    def serials() -> dict[str, int]:
        return {zone.text: answers.serials[zone.name] for zone in answers.zones}

    def all_but(*public: str) -> dict[str, int]:
        return {text: 101 if text not in PUBLIC else 102 if text in public else 100 for text in serials()}

    assert set(serials().values()) == {100}
    put(answers, service("new", "10.96.0.30"))
    moved = answers.set_serial(101)
    assert {zone.text for zone in moved} == {text for text in serials() if text not in PUBLIC}
    assert serials() == all_but()
    publish(answers, "new.example.com", a("new.example.com", "192.0.2.11"))
    assert [zone.text for zone in answers.set_serial(102)] == ["example.com"]
    assert serials() == all_but("example.com")
    assert answers.set_serial(103) == []
    assert ask(answers, "gone.example.com").authority[0][0].serial == 102


def test_service_leaves_every_zone(answers: Answers) -> None:
    """Deleted once, gone everywhere."""
    take(answers, "default", "web")
    for zone in ("cluster.local", "corp.internal"):
        assert ask(answers, f"web.default.svc.{zone}").rcode() == dns.rcode.NXDOMAIN
    assert ask(answers, "20.0.96.10.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    ("network", "first", "count"),
    [
        ("10.96.0.0/16", "96.10.in-addr.arpa.", 1),
        ("10.96.0.0/12", "96.10.in-addr.arpa.", 16),
        ("10.96.16.0/20", "16.96.10.in-addr.arpa.", 16),
        ("10.0.0.0/8", "10.in-addr.arpa.", 1),
        ("10.96.0.7/32", "7.0.96.10.in-addr.arpa.", 1),
        ("fd00::/8", "d.f.ip6.arpa.", 1),
        ("fd00:10:96::/112", f"{'0.' * 16}6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.", 1),
        ("fd00::/10", "0.d.f.ip6.arpa.", 4),
    ],
)
def test_network_is_cut_into_zones_where_names_can_be(network: str, first: str, count: int) -> None:
    """At octets and hexadecimal digits."""
    found = [wire.to_text(name) for name in reverse_origins(ipaddress.ip_network(network))]
    assert found[0] == first
    assert len(set(found)) == count


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"dns_domain": ("cluster.local", "svc.cluster.local")}, "svc.cluster.local lies in the cluster's zone"),
        ({"dns_domain": ("a.internal", "a.internal")}, "a.internal lies in the cluster's zone a.internal"),
        ({"public_zone": ("x.cluster.local",)}, "x.cluster.local lies in the cluster's zone cluster.local"),
        ({"public_zone": ("a.com", "A.com")}, "a public zone is given twice"),
        ({"public_zone": ("no zone",)}, "--public-zone 'no zone': expected NAME or NAME=SERVER"),
        ({"public_zone": ("a.com=b c",)}, "--public-zone 'a.com=b c'"),
        ({"zone": ("a.b.com=10.0.0.1",), "public_zone": ("b.com",)}, "lies in the public zone b.com"),
        ({"host": ("a.com",)}, "--host 'a.com': expected NAME=ADDRESS"),
        ({"host": ("a.com=b",)}, "--host 'a.com=b'"),
        ({"host": ("a.cluster.local=10.0.0.1",)}, "--host 'a.cluster.local=10.0.0.1' lies in cluster.local"),
        ({"transfer_to": ("10.0.0.1/8",)}, "--transfer-to '10.0.0.1/8'"),
        ({"notify": ("ns1.example.org",)}, "--notify 'ns1.example.org': expected ADDRESS"),
    ],
)
def test_bad_setting_is_named(said: dict[str, tuple[str, ...]], message: str) -> None:
    """Flag, value, expectation."""
    with pytest.raises(BadSetting) as refusal:
        Settings(**said).check()
    assert message in str(refusal.value)
