"""Questions to the zone, our bytes read by dnspython."""

from __future__ import annotations

import ipaddress

import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.dns import wire
from kubesvc.dns.answers import Alias, Answers
from kubesvc.dns.config import plain_socket
from kubesvc.dns.entry import Entry, render
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.resolver import Resolver
from support.dns_zone import ask, endpoint, endpoint_slice, new_zone, put, service, small_cluster, take, texts

SVC = "default.svc.cluster.local."


def reverse(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer + "."


@pytest.fixture(scope="module")
def zone() -> Answers:
    answers = small_cluster()
    put(answers, service("db6", headless=True), endpoint_slice("db6", endpoint("fd00:1::5", "db6-0")))
    put(answers, service("first", external=f"inside.{SVC}"))
    return answers


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("kubernetes." + SVC, "A", ["A 10.96.0.1"]),
        ("web." + SVC, "A", ["A 10.96.0.20"]),
        ("dual." + SVC, "AAAA", ["AAAA fd00:96::21"]),
        ("db." + SVC, "A", ["A 10.244.1.5", "A 10.244.2.6"]),
        ("db-0.db." + SVC, "A", ["A 10.244.1.5"]),
        ("10-244-1-7.plain." + SVC, "A", ["A 10.244.1.7"]),
        ("10-244-1-9.web." + SVC, "A", ["A 10.244.1.9"]),
        (f"_http._tcp.web.{SVC}", "SRV", [f"SRV 0 100 80 web.{SVC}"]),
        (f"web.{SVC}", "SRV", [f"SRV 0 50 80 web.{SVC}", f"SRV 0 50 81 web.{SVC}"]),
        (f"_http._tcp.db.{SVC}", "SRV", [f"SRV 0 50 8080 db-0.db.{SVC}", f"SRV 0 50 8080 db-1.db.{SVC}"]),
        (f"db-0.db.{SVC}", "SRV", [f"SRV 0 100 8080 db-0.db.{SVC}"]),
        ("20.0.96.10.in-addr.arpa.", "PTR", [f"PTR web.{SVC}"]),
        ("5.1.244.10.in-addr.arpa.", "PTR", [f"PTR db-0.db.{SVC}"]),
        (reverse("fd00:96::21"), "PTR", [f"PTR dual.{SVC}"]),
        (reverse("fd00:1::5"), "PTR", [f"PTR db6-0.db6.{SVC}"]),
        (f"db6.{SVC}", "AAAA", ["AAAA fd00:1::5"]),
        (f"first.{SVC}", "A", ["A 10.96.0.20", f"CNAME inside.{SVC}", f"CNAME web.{SVC}"]),
        ("outside." + SVC, "CNAME", ["CNAME www.example.com."]),
        ("inside." + SVC, "A", ["A 10.96.0.20", f"CNAME web.{SVC}"]),
        ("dns-version.cluster.local.", "TXT", ['TXT "1.1.0"']),
        ("cluster.local.", "NS", ["NS ns.dns.cluster.local."]),
        ("ns.dns.cluster.local.", "A", ["A 10.96.0.10"]),
        ("10-0-0-1.default.pod.cluster.local.", "A", ["A 10.0.0.1"]),
        ("fd00--1.default.pod.cluster.local.", "AAAA", ["AAAA fd00::1"]),
    ],
)
def test_answer(zone: Answers, name: str, kind: str, expected: list[str]) -> None:
    """A name that has the type asked for is answered with authority, with nothing in the authority section."""
    reply = ask(zone, name, kind)
    assert texts(reply) == expected
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.AA
    assert reply.flags & dns.flags.RA
    assert not reply.authority


NODATA = [
    ("cluster.local.", "A"),
    ("svc.cluster.local.", "A"),
    ("pod.cluster.local.", "A"),
    ("default.svc.cluster.local.", "A"),
    ("default.pod.cluster.local.", "A"),
    ("web." + SVC, "AAAA"),
    ("web." + SVC, "TXT"),
    ("web." + SVC, "HTTPS"),
    ("web." + SVC, "NS"),
    ("db." + SVC, "AAAA"),
    ("outside." + SVC, "SRV"),
    ("nowhere." + SVC, "A"),
    ("loop." + SVC, "A"),
    ("inside." + SVC, "AAAA"),
    ("_tcp.web." + SVC, "SRV"),
    ("10-0-0-1.default.pod.cluster.local.", "AAAA"),
    ("20.0.96.10.in-addr.arpa.", "A"),
]
NXDOMAIN = [
    ("nonamespace.svc.cluster.local.", "A"),
    ("web.nonamespace.svc.cluster.local.", "A"),
    ("gone." + SVC, "A"),
    ("gone." + SVC, "SRV"),
    ("empty." + SVC, "A"),
    ("number." + SVC, "A"),
    ("db-7.db." + SVC, "A"),
    ("10-244-1-8.web." + SVC, "A"),
    ("_smtp._tcp.web." + SVC, "SRV"),
    ("a.b.c.web." + SVC, "A"),
    ("a.outside." + SVC, "A"),
    ("other.cluster.local.", "A"),
    ("1-2-3-4.gone.pod.cluster.local.", "A"),
    ("nothing.default.pod.cluster.local.", "A"),
    (f"web.{SVC[:-1]}.default.svc.cluster.local.", "A"),
    (f"web.{SVC[:-1]}.svc.cluster.local.", "AAAA"),
    (f"web.{SVC[:-1]}.cluster.local.", "A"),
    ("www.example.com.default.svc.cluster.local.", "A"),
]


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [(*one, dns.rcode.NOERROR) for one in NODATA] + [(*one, dns.rcode.NXDOMAIN) for one in NXDOMAIN],
)
def test_negative_answer_is_exact_and_carries_the_soa(
    zone: Answers, name: str, kind: str, rcode: dns.rcode.Rcode
) -> None:
    """An existing name without the type is NODATA, any other NXDOMAIN; both say for how long."""
    reply = ask(zone, name, kind)
    assert reply.rcode() == rcode
    assert reply.answer == []
    (authority,) = reply.authority
    assert authority.name in (dns.name.from_text("cluster.local."), dns.name.from_text("in-addr.arpa."))
    words = str(authority[0]).split()
    assert words[:2] == ["ns.dns.cluster.local.", "hostmaster.cluster.local."]
    assert words[3:] == ["7200", "1800", "86400", "5"]
    assert authority.ttl == 5


def test_soa_at_the_apex(zone: Answers) -> None:
    """The apex has the SOA that negative answers carry."""
    assert str(ask(zone, "cluster.local.", "SOA").answer[0][0]).startswith("ns.dns.cluster.local. hostmaster.")


def test_ttls(zone: Answers) -> None:
    """Records live for the zone's TTL; the version for as long as the specification says."""
    assert ask(zone, "web." + SVC).answer[0].ttl == 5
    assert ask(zone, "dns-version.cluster.local", "TXT").answer[0].ttl == 28800


def test_case_of_the_question_comes_back(zone: Answers) -> None:
    """Names are found in any case; question and owner keep the case that was asked."""
    reply = ask(zone, "WeB.dEfault.SVC.Cluster.Local.")
    assert str(reply.question[0].name) == "WeB.dEfault.SVC.Cluster.Local."
    assert str(reply.answer[0].name) == "WeB.dEfault.SVC.Cluster.Local."


def test_srv_brings_the_addresses_along(zone: Answers) -> None:
    """Additional holds each target's addresses."""
    reply = ask(zone, f"_http._tcp.db.{SVC}", "SRV", payload=1232)
    assert texts(reply, "additional") == ["A 10.244.1.5", "A 10.244.2.6"]
    assert {str(rrset.name) for rrset in reply.additional} == {f"db-0.db.{SVC}", f"db-1.db.{SVC}"}


def test_addresses_take_turns(zone: Answers) -> None:
    """Each answer begins with another address, and none is lost."""
    firsts = [str(ask(zone, "db." + SVC).answer[0][0]) for _ in range(4)]
    assert firsts[0] != firsts[1]
    assert firsts[:2] == firsts[2:]


def test_alias_that_leads_outside_is_handed_on(zone: Answers) -> None:
    """An ExternalName's target outside the zone is for an upstream."""
    found = zone.find(wire.question(wire.encode_name("outside." + SVC), wire.A))
    assert isinstance(found, Alias)
    assert found.target == wire.encode_name("www.example.com")


@pytest.mark.parametrize(
    "name", ["www.example.com", "local", "cluster.local.example.com", "xcluster.local", "8.8.8.8.in-addr.arpa", "."]
)
def test_other_names_arent_ours(zone: Answers, name: str) -> None:
    """What is outside the zone, even by a letter, is forwarded."""
    assert zone.find(wire.question(wire.encode_name(name), wire.A)) is None


def test_a_label_that_only_looks_like_the_zone_is_not_in_it(zone: Answers) -> None:
    """A label with a length byte inside doesn't make a name one of the zone's."""
    inside = b"\x07cluster\x05local"
    assert zone.find(wire.question(wire.join([b"x" + inside]), wire.A)) is None


def test_a_name_with_an_empty_label_is_nobodys(zone: Answers) -> None:
    """Two names in a row are not one: what isn't a question is for the strict parser."""
    broken = b"\x03web\x00" + wire.encode_name("cluster.local")
    assert zone.find(wire.question(broken, wire.A)) is None


def test_nobody_is_told_anything_before_the_caches_have_synced() -> None:
    """SERVFAIL, not NXDOMAIN, so that nobody remembers a wrong answer."""
    answers = small_cluster()
    answers.synced = False
    reply = ask(answers, "gone." + SVC)
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert reply.authority == []
    assert ask(answers, "web." + SVC).rcode() == dns.rcode.SERVFAIL


def test_reverse_names_of_the_cluster_are_never_forwarded() -> None:
    """An address of the cluster's ranges that nobody has doesn't exist; others are somebody else's to know."""
    answers = new_zone(networks=[ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_network("fd00::/16")])
    assert ask(answers, "1.1.244.10.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN
    assert ask(answers, ipaddress.ip_address("fd00::1").reverse_pointer, "PTR").rcode() == dns.rcode.NXDOMAIN
    assert answers.find(wire.question(wire.encode_name("1.1.243.10.in-addr.arpa"), wire.PTR)) is None
    assert ask(answers, "244.10.in-addr.arpa", "PTR").rcode() == dns.rcode.NOERROR


def test_the_life_of_a_service() -> None:
    """A name appears, moves, changes its kind and goes, and nothing of it stays."""
    answers = new_zone()

    def kept() -> tuple[object, ...]:
        return set(answers.table), len(answers._pointers), len(answers._recent), dict(answers._makers)

    before = kept()
    name = "web." + SVC
    assert ask(answers, name).rcode() == dns.rcode.NXDOMAIN

    put(answers, service("web", "10.96.0.20"), endpoint_slice("web", endpoint("10.244.1.9")))
    assert texts(ask(answers, name)) == ["A 10.96.0.20"]

    put(answers, service("web", headless=True), endpoint_slice("web", endpoint("10.244.1.9")))
    assert texts(ask(answers, name)) == ["A 10.244.1.9"]
    assert answers.find(wire.question(wire.encode_name("20.0.96.10.in-addr.arpa"), wire.PTR)) is None

    put(answers, service("web", external="www.example.com"))
    assert isinstance(answers.find(wire.question(wire.encode_name(name), wire.A)), Alias)
    assert ask(answers, "10-244-1-9." + name).rcode() == dns.rcode.NXDOMAIN

    take(answers, "default", "web")
    assert ask(answers, name).rcode() == dns.rcode.NXDOMAIN
    assert kept() == before


def test_a_namespace_comes_and_goes() -> None:
    """An unknown namespace is NXDOMAIN, an empty one NODATA."""
    answers = new_zone()
    name = "shop.svc.cluster.local."
    assert ask(answers, name).rcode() == dns.rcode.NXDOMAIN
    answers.set_namespace("shop", exists=True)
    answers.set_namespace("shop", exists=True)
    assert ask(answers, name).rcode() == dns.rcode.NOERROR
    answers.set_namespace("shop", exists=False)
    assert ask(answers, name).rcode() == dns.rcode.NXDOMAIN


def test_a_pod_behind_two_services_has_both_names_until_one_goes() -> None:
    """PTR of an endpoint: one for each Service that selects it."""
    answers = new_zone()
    for name in ("a", "b"):
        put(answers, service(name, headless=True), endpoint_slice(name, endpoint("10.244.1.9")))
    reverse = "9.1.244.10.in-addr.arpa"
    assert texts(ask(answers, reverse, "PTR")) == [f"PTR 10-244-1-9.a.{SVC}", f"PTR 10-244-1-9.b.{SVC}"]
    take(answers, "default", "a")
    assert texts(ask(answers, reverse, "PTR")) == [f"PTR 10-244-1-9.b.{SVC}"]


def test_a_cluster_ip_hides_endpoints_with_its_address() -> None:
    """PTR of a cluster IP is the Service, also when somebody has it as an endpoint."""
    answers = new_zone()
    put(answers, service("b", headless=True), endpoint_slice("b", endpoint("10.96.0.20")))
    put(answers, service("web", "10.96.0.20"))
    assert texts(ask(answers, "20.0.96.10.in-addr.arpa", "PTR")) == [f"PTR web.{SVC}"]


def test_a_new_serial_reaches_every_negative_answer() -> None:
    """The SOA says when the zone last changed, in answers made before as well."""
    answers = small_cluster()
    for name, kind in (("web." + SVC, "AAAA"), ("gone." + SVC, "A")):
        ask(answers, name, kind)
        answers.set_serial(answers.serial + 7)
        assert ask(answers, name, kind).authority[0][0].serial == answers.serial
    assert ask(answers, "cluster.local", "SOA").answer[0][0].serial == answers.serial


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def crowd() -> Answers:
    answers = new_zone()
    many = [endpoint(f"10.244.1.{n}", f"pod-{n}") for n in range(1, 101)]
    put(answers, service("crowd", headless=True), endpoint_slice("crowd", *many))
    few = [endpoint(f"10.244.2.{n}", f"a-longer-host-name-{n}") for n in range(1, 7)]
    put(answers, service("few", headless=True), endpoint_slice("few", *few))
    return answers


@pytest.mark.parametrize(("payload", "count"), [(None, 28), (512, 28), (100, 28), (1232, 73), (4096, 100)], ids=str)
def test_what_doesnt_fit_is_cut_and_says_so(crowd: Answers, payload: int | None, count: int) -> None:
    """As many addresses as the client can receive; TC when that isn't all. Without EDNS, and at least, 512 bytes."""
    reply = ask(crowd, "crowd." + SVC, payload=payload)
    assert len(reply.answer[0]) == count
    assert bool(reply.flags & dns.flags.TC) == (count < 100)
    assert len(reply.to_wire(max_size=65535)) <= max(payload or 512, 512)


def test_additional_is_left_out_first_and_silently(crowd: Answers) -> None:
    """SRV targets' addresses are a courtesy: without room they go, and nobody has to come back over TCP for them."""
    name = f"_http._tcp.few.{SVC}"
    whole = ask(crowd, name, "SRV", payload=4096)
    assert len(whole.additional) == 6
    tight = ask(crowd, name, "SRV")
    assert len(tight.answer[0]) == 6
    assert not tight.flags & dns.flags.TC
    assert tight.additional == []


def test_srv_that_doesnt_fit_asks_to_come_back(crowd: Answers) -> None:
    """A cut SRV set is empty with TC: part of it would be taken for all."""
    reply = ask(crowd, f"_http._tcp.crowd.{SVC}", "SRV", payload=1232)
    assert reply.flags & dns.flags.TC
    assert reply.answer == []


def test_srv_of_many_endpoints_stays_readable_beyond_what_a_pointer_reaches() -> None:
    """Targets farther than 16 KiB are spelt out in Additional."""
    answers = new_zone()
    many = [endpoint(f"10.244.{n // 200}.{n % 200 + 1}", f"pod-{n}") for n in range(300)]
    put(answers, service("crowd", headless=True), endpoint_slice("crowd", *many))
    reply = ask(answers, f"_http._tcp.crowd.{SVC}", "SRV", payload=65000)
    assert len(reply.answer[0]) == len(reply.additional) == 300


# ── any bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────

label = st.binary(min_size=1, max_size=20)
kinds = st.integers(1, 65535).filter(lambda kind: kind not in (251, 252))  # whole zones: `transfer` answers


@given(st.lists(label, min_size=1, max_size=6), st.sampled_from(["", "cluster.local", SVC]), kinds)
def test_any_question_has_an_answer_that_reads(labels: list[bytes], under: str, kind: int) -> None:
    """Whatever is asked, our answer is one to that question, as dnspython reads it."""
    name = wire.join(labels, wire.encode_name(under))
    query = wire.Query(b"ab", 0x0100, wire.question(name, kind), 1232)
    found = _zone.find(query.question)
    if isinstance(found, Entry):
        reply = dns.message.from_wire(render(query, found, 1232))
        assert reply.question[0].name == dns.name.from_wire(name, 0)[0]
    else:
        assert not name.lower().endswith(wire.encode_name("cluster.local")) or not under


@given(st.binary(max_size=80))
def test_any_datagram_gets_a_readable_answer_or_none(data: bytes) -> None:
    """No bytes from the network break us: what comes back is a message, or nothing."""
    found = _resolver.local(data, tcp=False)
    if isinstance(found, bytes):
        assert dns.message.from_wire(found).id == int.from_bytes(data[:2], "big")


_zone = small_cluster()
_resolver = Resolver(_zone, Forwarder((), plain_socket, clock=lambda: 0.0))
