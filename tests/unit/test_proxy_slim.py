"""What the proxy keeps of Services and slices decides exactly what the whole objects decide."""

from __future__ import annotations

import msgspec

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.proxy.endpoints import Locality
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import pack
from kubesvc.proxy.slim import slim_service, slim_slice
from support.proxy import NODE, NODE_IP, endpoint, service, slice_of

SERVICES = [
    service(),
    service(
        "np", "10.96.0.11", ports=[{"port": 80, "nodePort": 30080}], type="NodePort", externalTrafficPolicy="Local"
    ),
    service("lb", "10.96.0.12", type="LoadBalancer", status_ips=["192.0.2.1"], loadBalancerSourceRanges=["10.0.0.0/8"]),
    service("sticky", "10.96.0.13", sessionAffinity="ClientIP", internalTrafficPolicy="Local"),
    service("headless", "None"),
    service("other", "10.96.0.14", labels={"service.kubernetes.io/service-proxy-name": "other"}),
]
SLICES = [
    slice_of(
        endpoint("10.244.0.1", node=NODE, hints={"forZones": [{"name": "a"}]}),
        endpoint("10.244.1.1", state="draining", targetRef={"kind": "Pod", "name": "p", "uid": "u"}),
        endpoint("10.244.1.2", state="nil", hints={"forZones": [{"name": "b"}]}),
        owner=owner,
    )
    for owner in ("web", "np", "lb", "sticky", "headless", "other")
]


def decided(services: list[Service], slices: list[EndpointSlice]) -> object:
    frontends = Frontends(Locality(NODE, "a"), [pack(NODE_IP)])
    for found in services:
        frontends.set_service(found.key, found)
    for part in slices:
        frontends.set_slice(None, part)
    frontends.take()
    return frontends.everything()


def test_the_decisions_are_the_same() -> None:
    """Every policy, hints, terminating endpoints, another proxy's Service."""
    slim = decided([slim_service(s) for s in SERVICES], [slim_slice(s) for s in SLICES])
    assert slim == decided(SERVICES, SLICES)


def test_what_nobody_looks_at_is_gone_and_what_is_alike_is_one() -> None:
    """No selector, no pod's uid, no managed annotations; equal ports and conditions are one object."""
    one, two = (slim_slice(msgspec.convert(msgspec.to_builtins(s), EndpointSlice)) for s in SLICES[:2])
    assert one.ports is two.ports
    assert one.endpoints[0].conditions is two.endpoints[0].conditions
    assert all(e.target_ref is None for e in one.endpoints)
    noisy = msgspec.convert(
        {"metadata": {"name": "a", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
         "spec": {"selector": {"app": "a"}}},
        Service,
    )  # fmt: skip
    assert slim_service(noisy).metadata.annotations == {}
    assert slim_service(noisy).spec.selector is None
