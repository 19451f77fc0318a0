"""A small cluster for DNS tests, the zone that answers for it, and questions asked and read with dnspython."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import dns.message
import dns.rdatatype

from kubesvc.api.core import Service, ServicePort, ServiceSpec
from kubesvc.api.discovery import Endpoint, EndpointConditions, EndpointSlice, SlicePort
from kubesvc.api.endpoints import cluster_ips
from kubesvc.api.meta import ObjectMeta
from kubesvc.dns import entry, wire
from kubesvc.dns.answers import Answers
from kubesvc.dns.entry import Entry
from kubesvc.dns.records import records_in
from kubesvc.dns.resolver import limit
from kubesvc.dns.sets import Owner

ZONE = "cluster.local"


def service(
    name: str,
    *ips: str,
    namespace: str = "default",
    ports: Sequence[tuple[str, str, int]] = (("http", "TCP", 80),),
    headless: bool = False,
    external: str = "",
) -> Service:
    """A ClusterIP Service with `ips`, a headless one, or an ExternalName."""
    listed = ["None"] if headless else list(ips)
    return Service(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=ServiceSpec(
            type="ExternalName" if external else "ClusterIP",
            cluster_ip=listed[0] if listed else "",
            cluster_ips=listed,
            external_name=external,
            ports=[ServicePort(name=n, protocol=protocol, port=port) for n, protocol, port in ports],
        ),
    )


def endpoint(address: str, hostname: str | None = None, *, ready: bool | None = None) -> Endpoint:
    return Endpoint(addresses=[address], hostname=hostname, conditions=EndpointConditions(ready=ready))


def endpoint_slice(
    service_name: str,
    *endpoints: Endpoint,
    namespace: str = "default",
    ports: Sequence[tuple[str, str, int]] = (("http", "TCP", 8080),),
    suffix: str = "a",
) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"{service_name}-{suffix}", namespace=namespace, labels={"kubernetes.io/service-name": service_name}
        ),
        endpoints=list(endpoints),
        ports=[SlicePort(name=n, protocol=protocol, port=port) for n, protocol, port in ports],
    )


_addresses: WeakKeyDictionary[Answers, dict[Owner, list[str]]] = WeakKeyDictionary()


def put(answers: Answers, one: Service, *slices: EndpointSlice) -> None:
    """Let `answers` have `one`, as a change of the world would."""
    known = _addresses.setdefault(answers, {})
    listed = [a for piece in slices for e in piece.endpoints if e.ready for a in e.addresses] + cluster_ips(one)
    answers.promise(one.key, lambda owner: records_in(answers.zones, one, slices, answers.ttl))
    answers.changed(one.key, gone=known.get(one.key, ()), come=listed)
    known[one.key] = listed


def take(answers: Answers, namespace: str, name: str) -> None:
    """Let `answers` have that Service no longer."""
    answers.promise((namespace, name), None)
    answers.changed((namespace, name), gone=_addresses[answers].pop((namespace, name)))


def new_zone(**options: object) -> Answers:
    """An empty zone that has synced, with the namespaces default and kube-system."""
    answers = Answers(ZONE, ttl=5, **options)  # type: ignore[arg-type]
    answers.set_namespace("default", exists=True)
    answers.set_namespace("kube-system", exists=True)
    answers.synced = True
    return answers


def small_cluster(**options: object) -> Answers:
    """One Service of each kind."""
    answers = new_zone(**options)
    put(answers, service("kubernetes", "10.96.0.1", ports=[("https", "TCP", 443)]))
    put(
        answers,
        service("web", "10.96.0.20", ports=[("http", "TCP", 80), ("", "UDP", 81)]),
        endpoint_slice("web", endpoint("10.244.1.9"), endpoint("10.244.1.8", ready=False)),
    )
    put(answers, service("dual", "10.96.0.21", "fd00:96::21"))
    put(
        answers,
        service("db", headless=True),
        endpoint_slice(
            "db", endpoint("10.244.1.5", "db-0"), endpoint("10.244.2.6", "db-1"), endpoint("10.244.3.7", ready=False)
        ),
    )
    put(answers, service("plain", headless=True), endpoint_slice("plain", endpoint("10.244.1.7")))
    put(answers, service("empty", headless=True), endpoint_slice("empty", endpoint("10.244.1.6", ready=False)))
    put(answers, service("outside", external="www.example.com"))
    put(answers, service("inside", external="web.default.svc.cluster.local."))
    put(answers, service("nowhere", external="gone.default.svc.cluster.local"))
    put(answers, service("loop", external="loop.default.svc.cluster.local"))
    put(answers, service("number", external="192.0.2.1"))
    put(
        answers,
        service("kube-dns", "10.96.0.10", namespace="kube-system", ports=[("dns", "UDP", 53), ("dns-tcp", "TCP", 53)]),
    )
    return answers


def ask(answers: Answers, name: str, kind: str = "A", *, payload: int | None = None) -> dns.message.Message:
    """What `answers` says, through our bytes both ways; the name is asked as it is spelt."""
    query = dns.message.make_query(name, kind, use_edns=payload is not None or None, payload=payload or 0)
    parsed = wire.parse(query.to_wire())
    assert isinstance(parsed, wire.Query)
    found = answers.find(parsed.question)
    assert isinstance(found, Entry), f"{name} {kind}: not answered from the zone: {found}"
    reply = dns.message.from_wire(entry.render(parsed, found, limit(parsed, tcp=False)))
    assert query.is_response(reply)
    return reply


def texts(reply: dns.message.Message, section: str = "answer") -> list[str]:
    """Records as "TYPE data", sorted."""
    return sorted(
        f"{dns.rdatatype.to_text(rrset.rdtype)} {data}" for rrset in getattr(reply, section) for data in rrset
    )
