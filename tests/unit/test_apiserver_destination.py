"""Where a proxied request goes: schemes, ports by number and name, pods without a port, Services' ready endpoints."""

from __future__ import annotations

import msgspec
import pytest

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import ApiError, BadRequest, ServiceUnavailable
from kubesvc.api.pods import Pod
from kubesvc.apiserver.routing import resolve, streamed
from kubesvc.apiserver.subresources.destination import Destination, Wanted, of_pod, of_service, parse


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("web", Wanted("http", "web", "")),
        ("web:80", Wanted("http", "web", "80")),
        ("web:http", Wanted("http", "web", "http")),
        ("https:web:", Wanted("https", "web", "")),
        ("http:web:80", Wanted("http", "web", "80")),
        (":web:80", Wanted("http", "web", "80")),
    ],
)
def test_a_name_may_carry_a_scheme_and_a_port(text: str, wanted: Wanted) -> None:
    assert parse("service", text) == wanted


@pytest.mark.parametrize("text", ["ftp:web:80", "http:web:80:90", ":80", "http::80"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="invalid service request"):
        parse("service", text)


def pod(*ports: dict[str, object], ip: str = "10.1.2.3") -> Pod:
    containers = [{"name": "first"}, {"name": "second", "ports": list(ports)}]
    tree = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": containers}, "status": {"podIP": ip}}
    return msgspec.convert(tree, Pod)


HTTP = {"name": "http", "containerPort": 8080}


@pytest.mark.parametrize(
    ("wanted", "ports", "port"),
    [
        ("p", [HTTP], 8080),
        ("p", [], 80),
        ("https:p:", [], 443),
        ("p:99", [HTTP], 99),
        ("p:http", [{"name": "x", "containerPort": 1}, HTTP], 8080),
    ],
    ids=["the first container port", "no port at all", "https", "a number", "a name"],
)
def test_the_port_of_a_pod(wanted: str, ports: list[dict[str, object]], port: int) -> None:
    found = of_pod(parse("pod", wanted), pod(*ports))
    assert (found.address, found.port, found.node) == ("10.1.2.3", port, "n1")


@pytest.mark.parametrize(
    ("subject", "message"),
    [(pod(ip=""), "does not have an address"), (pod(ip="127.0.0.1"), "not allowed"), (pod(ip="169.254.1.1"), "not")],
)
def test_pods_that_cannot_be_proxied_to(subject: Pod, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        of_pod(parse("pod", "p"), subject)


SERVICE = msgspec.convert(
    {"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}, {"name": "more", "port": 81}]}},
    Service,
)


def slice_(port: str, number: int, *endpoints: tuple[str, bool, str]) -> EndpointSlice:
    tree = {
        "metadata": {"name": "web-1"},
        "addressType": "IPv4",
        "ports": [{"name": port, "port": number, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": ready}, "nodeName": node}
            for address, ready, node in endpoints
        ],
    }
    return msgspec.convert(tree, EndpointSlice)


SLICES = [
    slice_("http", 8080, ("10.0.0.1", True, "n1"), ("10.0.0.2", False, "n2")),
    slice_("http", 9090, ("10.0.0.3", True, "n3")),
    slice_("more", 8081, ("10.0.0.1", True, "n1")),
]


@pytest.mark.parametrize(
    ("wanted", "chosen", "found"),
    [
        ("web:http", 0, Destination("http", "10.0.0.1", 8080, "n1")),
        ("web:80", 1, Destination("http", "10.0.0.3", 9090, "n3")),
        ("https:web:81", 0, Destination("https", "10.0.0.1", 8081, "n1")),
    ],
    ids=["by name", "by number, with its own target port", "over TLS"],
)
def test_a_service_s_ready_endpoints_are_chosen_from(wanted: str, chosen: int, found: Destination) -> None:
    assert of_service(parse("service", wanted), SERVICE, SLICES, lambda n: chosen) == found


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("web:82", 'no service port 82 found for service "web"'),
        ("web:none", 'no endpoints available for service "web:none"'),
        ("web", 'no endpoints available for service "web"'),
    ],
)
def test_a_service_that_nobody_answers_for(wanted: str, message: str) -> None:
    with pytest.raises(ServiceUnavailable, match=message) as raised:
        of_service(parse("service", wanted), SERVICE, SLICES, lambda n: 0)
    assert isinstance(raised.value, ApiError)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v1/namespaces/x/services/http:web:80/proxy/a/b//c", "http:web:80"),
        ("/api/v1/namespaces/x/pods/p/proxy", "p"),
        ("/api/v1/nodes/n1/proxy/healthz", "n1"),
    ],
)
def test_what_follows_proxy_is_a_path_of_somebody_else_s(path: str, name: str) -> None:
    target = resolve(path)
    assert target is not None
    assert (target.name, target.subresource) == (name, "proxy")
    assert streamed(path)


@pytest.mark.parametrize(
    "path", ["/api/v1/namespaces/x/configmaps/proxy", "/api/v1/namespaces/x/configmaps/c/proxy/x", "/api/v1/proxy"]
)
def test_other_paths_have_their_bodies_read(path: str) -> None:
    assert not streamed(path)
