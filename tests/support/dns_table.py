"""The DNS contract: question -> (rcode, answer, authority, additional), a row for each statement of the specification.

Objects are those of `cluster`; a row reads "what is asked" -> "what comes back", each section sorted, TTLs left out.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import dns.message
import dns.rcode
import dns.rdatatype

from kubesvc.dns.answers import Answers
from support.dns_zone import endpoint, endpoint_slice, put, service, small_cluster

ZONE = "cluster.local."
SVC = "default.svc.cluster.local."
NETWORKS = ("10.96.0.0/16", "10.244.0.0/16", "fd00:96::/112", "fd00:1::/64")


def cluster(**options: object) -> Answers:
    """The small cluster, with reverse zones, dual-stack headless Services and chains of aliases."""
    networks = [ipaddress.ip_network(text) for text in NETWORKS]
    answers = small_cluster(networks=networks, **options)
    both = [endpoint("10.244.4.1", "both-0"), endpoint("10.244.4.2")]
    put(
        answers,
        service("both", headless=True),
        endpoint_slice("both", *both),
        endpoint_slice("both", endpoint("fd00:1::41", "both-0"), suffix="six"),
    )
    put(answers, service("db6", headless=True), endpoint_slice("db6", endpoint("fd00:1::5", "db6-0")))
    put(answers, service("mute", headless=True, ports=[]), endpoint_slice("mute", endpoint("10.244.5.1"), ports=[]))
    put(answers, service("first", external=f"inside.{SVC}"))
    for number in range(12):
        put(answers, service(f"long-{number}", external=f"long-{number + 1}.{SVC}"))
    for name in ("twin-a", "twin-b"):
        put(answers, service(name, headless=True), endpoint_slice(name, endpoint("10.244.6.1")))
    return answers


class Row(NamedTuple):
    about: str
    name: str
    type: str
    rcode: str
    answer: tuple[str, ...] = ()
    soa: str = ""  # whose SOA is the authority
    additional: tuple[str, ...] = ()


def _yes(about: str, name: str, kind: str, *answer: str, additional: tuple[str, ...] = ()) -> Row:
    return Row(about, name, kind, "NOERROR", tuple(sorted(answer)), "", tuple(sorted(additional)))


def _nodata(about: str, name: str, kind: str, soa: str = ZONE) -> Row:
    return Row(about, name, kind, "NOERROR", (), soa)


def _nothing(about: str, name: str, kind: str, soa: str = ZONE) -> Row:
    return Row(about, name, kind, "NXDOMAIN", (), soa)


def reverse(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer + "."


WEB = f"web.{SVC}"
DB_ADDRESSES = (f"db-0.db.{SVC} A 10.244.1.5", f"db-1.db.{SVC} A 10.244.2.6")
CLUSTER_4, CLUSTER_6 = "96.10.in-addr.arpa.", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa."
PODS_4, PODS_6 = "244.10.in-addr.arpa.", "0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa."

ROWS = [
    # svc.ns.svc, ClusterIP
    _yes("cluster IP", WEB, "A", f"{WEB} A 10.96.0.20"),
    _yes("cluster IPs of both families", f"dual.{SVC}", "AAAA", f"dual.{SVC} AAAA fd00:96::21"),
    _yes("cluster IPs of both families", f"dual.{SVC}", "A", f"dual.{SVC} A 10.96.0.21"),
    _nodata("the missing family", WEB, "AAAA"),
    _nodata("another type", WEB, "TXT"),
    _nodata("another type", WEB, "HTTPS"),
    _nodata("NS is at the apex only", WEB, "NS"),
    # headless
    _yes("every ready endpoint", f"db.{SVC}", "A", f"db.{SVC} A 10.244.1.5", f"db.{SVC} A 10.244.2.6"),
    _yes("every ready endpoint", f"both.{SVC}", "A", f"both.{SVC} A 10.244.4.1", f"both.{SVC} A 10.244.4.2"),
    _yes("of the other family", f"both.{SVC}", "AAAA", f"both.{SVC} AAAA fd00:1::41"),
    _nodata("the missing family", f"db.{SVC}", "AAAA"),
    _nothing("none is ready", f"empty.{SVC}", "A"),
    # host.svc.ns.svc
    _yes("hostname", f"db-0.db.{SVC}", "A", f"db-0.db.{SVC} A 10.244.1.5"),
    _yes("dashed address", f"10-244-4-2.both.{SVC}", "A", f"10-244-4-2.both.{SVC} A 10.244.4.2"),
    _yes("of a ClusterIP Service", f"10-244-1-9.{WEB}", "A", f"10-244-1-9.{WEB} A 10.244.1.9"),
    _nothing("of an endpoint that is not ready", f"10-244-1-8.{WEB}", "A"),
    _nothing("of nobody", f"db-7.db.{SVC}", "A"),
    # SRV
    _yes(
        "named port, ClusterIP: the Service",
        f"_http._tcp.{WEB}",
        "SRV",
        f"_http._tcp.{WEB} SRV 0 100 80 {WEB}",
        additional=(f"{WEB} A 10.96.0.20",),
    ),
    _yes(
        "named port, headless: each endpoint",
        f"_http._tcp.db.{SVC}",
        "SRV",
        f"_http._tcp.db.{SVC} SRV 0 50 8080 db-0.db.{SVC}",
        f"_http._tcp.db.{SVC} SRV 0 50 8080 db-1.db.{SVC}",
        additional=DB_ADDRESSES,
    ),
    _yes(
        "all ports of a ClusterIP Service",
        WEB,
        "SRV",
        f"{WEB} SRV 0 50 80 {WEB}",
        f"{WEB} SRV 0 50 81 {WEB}",
        additional=(f"{WEB} A 10.96.0.20",),
    ),
    _yes(
        "all ports of one endpoint",
        f"db-0.db.{SVC}",
        "SRV",
        f"db-0.db.{SVC} SRV 0 100 8080 db-0.db.{SVC}",
        additional=(f"db-0.db.{SVC} A 10.244.1.5",),
    ),
    _yes(
        "a target's addresses of both families",
        f"both-0.both.{SVC}",
        "SRV",
        f"both-0.both.{SVC} SRV 0 100 8080 both-0.both.{SVC}",
        additional=(f"both-0.both.{SVC} A 10.244.4.1", f"both-0.both.{SVC} AAAA fd00:1::41"),
    ),
    _yes(
        "all ports of one endpoint of a ClusterIP Service",
        f"10-244-1-9.{WEB}",
        "SRV",
        f"10-244-1-9.{WEB} SRV 0 100 8080 10-244-1-9.{WEB}",
        additional=(f"10-244-1-9.{WEB} A 10.244.1.9",),
    ),
    _nodata("ports are the Service's to have", f"mute.{SVC}", "SRV"),
    _nothing("no such port", f"_smtp._tcp.{WEB}", "SRV"),
    _nothing("another protocol", f"_http._udp.{WEB}", "SRV"),
    _nodata("between port and Service", f"_tcp.{WEB}", "SRV"),
    _nodata("a port's name has SRV alone", f"_http._tcp.{WEB}", "A"),
    # PTR
    _yes("cluster IP", reverse("10.96.0.20"), "PTR", f"{reverse('10.96.0.20')} PTR {WEB}"),
    _yes("cluster IP, IPv6", reverse("fd00:96::21"), "PTR", f"{reverse('fd00:96::21')} PTR dual.{SVC}"),
    _yes("endpoint", reverse("10.244.1.5"), "PTR", f"{reverse('10.244.1.5')} PTR db-0.db.{SVC}"),
    _yes("endpoint, IPv6", reverse("fd00:1::5"), "PTR", f"{reverse('fd00:1::5')} PTR db6-0.db6.{SVC}"),
    _yes(
        "one for each Service that selects it",
        reverse("10.244.6.1"),
        "PTR",
        f"{reverse('10.244.6.1')} PTR 10-244-6-1.twin-a.{SVC}",
        f"{reverse('10.244.6.1')} PTR 10-244-6-1.twin-b.{SVC}",
    ),
    _nothing("nobody's", reverse("10.96.9.9"), "PTR", CLUSTER_4),
    _nothing("nobody's, IPv6", reverse("fd00:1::9"), "PTR", PODS_6),
    _nodata("another type", reverse("10.96.0.20"), "A", CLUSTER_4),
    _nodata("above addresses", "1.244.10.in-addr.arpa.", "PTR", PODS_4),
    _nothing("above none", "77.244.10.in-addr.arpa.", "PTR", PODS_4),
    _nodata("above addresses, IPv6", "0.0.0." + PODS_6, "PTR", PODS_6),
    _nothing("above none, IPv6", "7." + PODS_6, "PTR", PODS_6),
    _nodata("apex", CLUSTER_6, "PTR", CLUSTER_6),
    _yes("apex", PODS_4, "NS", f"{PODS_4} NS ns.dns.{ZONE}"),
    # ExternalName
    _yes("alias", f"outside.{SVC}", "CNAME", f"outside.{SVC} CNAME www.example.com."),
    _yes("followed in the zone", f"inside.{SVC}", "A", f"inside.{SVC} CNAME {WEB}", f"{WEB} A 10.96.0.20"),
    _yes(
        "from alias to alias",
        f"first.{SVC}",
        "A",
        f"first.{SVC} CNAME inside.{SVC}",
        f"inside.{SVC} CNAME {WEB}",
        f"{WEB} A 10.96.0.20",
    ),
    _nodata("longer than ten", f"long-0.{SVC}", "A"),
    _nodata("to itself", f"loop.{SVC}", "A"),
    _nodata("to nothing in the zone", f"nowhere.{SVC}", "A"),
    _nodata("to the other family", f"inside.{SVC}", "AAAA"),
    _nothing("an address as value", f"number.{SVC}", "A"),
    _nodata("SRV", f"outside.{SVC}", "SRV"),
    _nothing("below", f"a.outside.{SVC}", "A"),
    # pods
    _yes("pod", f"10-0-0-1.default.pod.{ZONE}", "A", f"10-0-0-1.default.pod.{ZONE} A 10.0.0.1"),
    _yes("pod, IPv6", f"fd00--1.default.pod.{ZONE}", "AAAA", f"fd00--1.default.pod.{ZONE} AAAA fd00::1"),
    _nodata("pod of the other family", f"10-0-0-1.default.pod.{ZONE}", "AAAA"),
    _nothing("pod of no namespace", f"10-0-0-1.gone.pod.{ZONE}", "A"),
    _nothing("no address", f"nothing.default.pod.{ZONE}", "A"),
    # the zone itself
    _yes("version", f"dns-version.{ZONE}", "TXT", f'dns-version.{ZONE} TXT "1.1.0"'),
    _yes("name server", ZONE, "NS", f"{ZONE} NS ns.dns.{ZONE}"),
    _yes("name server's address", f"ns.dns.{ZONE}", "A", f"ns.dns.{ZONE} A 10.96.0.10"),
    _yes("authority", ZONE, "SOA", f"{ZONE} SOA ns.dns.{ZONE} hostmaster.{ZONE} 1 7200 1800 86400 5"),
    _nodata("apex", ZONE, "A"),
    _nodata("svc", f"svc.{ZONE}", "A"),
    _nodata("pod", f"pod.{ZONE}", "A"),
    _nodata("namespace", SVC, "A"),
    _nodata("namespace of pods", f"default.pod.{ZONE}", "A"),
    _nothing("no namespace", f"gone.svc.{ZONE}", "A"),
    _nothing("Service of no namespace", f"web.gone.svc.{ZONE}", "A"),
    _nothing("no Service", f"gone.{SVC}", "A"),
    _nothing("more than two labels", f"a.b.c.{WEB}", "A"),
    _nothing("another name", f"other.{ZONE}", "A"),
]
IDS = [f"{row.about}: {row.name.removesuffix('.')} {row.type}" for row in ROWS]


def check(row: Row, reply: dns.message.Message) -> None:
    """Fails unless `reply` is what the row says."""
    assert dns.rcode.to_text(reply.rcode()) == row.rcode
    assert lines(reply, "answer") == row.answer
    authority = lines(reply, "authority")
    assert [line.split(" SOA ")[0] for line in authority] == ([row.soa] if row.soa else [])
    assert all(" 7200 1800 86400 5" in line and f" ns.dns.{ZONE} " in line for line in authority)
    assert lines(reply, "additional") == row.additional


def lines(reply: dns.message.Message, section: str) -> tuple[str, ...]:
    """A section as sorted "NAME TYPE DATA"."""
    return tuple(
        sorted(
            f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {data}"
            for rrset in getattr(reply, section)
            for data in rrset
        )
    )
