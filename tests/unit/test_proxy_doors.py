"""Which ports of this node itself Services need."""

from __future__ import annotations

from ipaddress import ip_address

from kubesvc.proxy.doors import Door, Doors
from support.proxy import NODE_IP, endpoint, service, slice_of

CHECKED = service("lb", type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=32100)
HTTPS = [{"name": "https", "port": 6443, "protocol": "TCP"}]
HOSTED = slice_of(endpoint(NODE_IP), "10.244.0.1", owner="kubernetes", ports=HTTPS)
CHECK = {Door("tcp", 32100, version, "the health check of Service default/lb") for version in (4, 6)}
HOST = {Door("tcp", 6443, 4, "Service default/kubernetes has an endpoint there")}


def test_doors_open_and_close_with_services_and_endpoints() -> None:
    """Health checks in every family of the node, endpoints at its own addresses; each change that matters is told."""
    told: list[frozenset[Door]] = []
    addresses = [ip_address(text) for text in (NODE_IP, "fd00:29::11", "127.0.0.1")]
    doors = Doors(addresses, lambda: told.append(doors.all()))
    doors.service_changed(None, service())
    doors.slice_changed(None, slice_of("10.244.0.1", "127.0.0.1"))
    assert told == []
    doors.service_changed(None, CHECKED)
    doors.slice_changed(None, HOSTED)
    doors.slice_changed(HOSTED, HOSTED)
    assert told == [CHECK, CHECK | HOST]
    doors.slice_changed(HOSTED, slice_of("10.244.0.1", owner="kubernetes", ports=HTTPS))
    doors.service_changed(CHECKED, None)
    assert told[2:] == [CHECK, set()]


def test_another_proxys_service_and_unknown_protocols_have_none() -> None:
    """What this proxy doesn't answer for needs nothing here."""
    doors = Doors([ip_address(NODE_IP)], lambda: None)
    label = {"service.kubernetes.io/service-proxy-name": "other"}
    doors.service_changed(None, service("lb", healthCheckNodePort=32100, labels=label))
    doors.slice_changed(None, slice_of(endpoint(NODE_IP), ports=[{"name": "x", "port": 1, "protocol": "DCCP"}]))
    assert doors.all() == set()
