"""The contract: (object, question) -> answer, for every row of the specification; asked of the code and of servers.

The objects are `dns_zone.small_cluster`'s and the few of `contract_zone`.
"""

from __future__ import annotations

import ipaddress

from kubesvc.dns.answers import Answers
from support.dns_zone import endpoint, endpoint_slice, put, service, small_cluster

SVC = "default.svc.cluster.local."


def reverse(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer + "."


def contract_zone() -> Answers:
    answers = small_cluster()
    put(answers, service("db6", headless=True), endpoint_slice("db6", endpoint("fd00:1::5", "db6-0")))
    put(answers, service("first", external=f"inside.{SVC}"))
    return answers


# (name, type, records of the answer section)
ANSWERS = [
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
]
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
