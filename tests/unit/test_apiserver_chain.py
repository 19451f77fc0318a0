"""Who may ask, what is where, and what every failure looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kubesvc.api.registry import CONFIG_MAP, DEPLOYMENT, IP_ADDRESS, KINDS, NAMESPACE, SERVICE
from kubesvc.apiserver.routing import Target, of_old, resolve
from kubesvc.apiserver.warnings import header
from kubesvc.client.transport import Handler, Request, Response, User
from support.apiserver import ADMIN, local_server

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


@pytest.fixture
async def handler() -> AsyncIterator[Handler]:
    async with local_server() as server:
        yield server.handler


async def send(
    handler: Handler, path: str, method: str = "GET", *, user: User | None = ADMIN, accept: str = "*/*", **query: str
) -> tuple[Response, Any]:
    response = await handler(Request(method, path, query, {"accept": accept}, user=user))
    return response, msgspec.json.decode(response.body) if response.content_type.startswith(
        "application/json"
    ) else None


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/api", "/apis", "/api/v1/services", "/openapi/v2", "/nowhere", "/metrics"])
async def test_a_stranger_gets_401_everywhere(handler: Handler, path: str) -> None:
    response, status = await send(handler, path, user=None)
    assert (response.status, status["reason"], status["message"]) == (401, "Unauthorized", "Unauthorized")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/version"])
async def test_a_stranger_may_ask_for_health_and_version(handler: Handler, path: str) -> None:
    response, _ = await send(handler, path, user=None)
    assert response.status == 200


async def test_health_names_its_checks(handler: Handler) -> None:
    response, _ = await send(handler, "/readyz", verbose="")
    assert response.body == b"[+]ping ok\n[+]store ok\n[+]bootstrap ok\nreadyz check passed\n"


async def test_the_version_says_which_api_and_which_server(handler: Handler) -> None:
    _, version = await send(handler, "/version")
    assert (version["major"], version["minor"]) == ("1", "36")
    assert version["gitVersion"].startswith("v1.36.0+kubesvc-")


# ── what is where ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/services", Target(SERVICE)),
        ("/api/v1/namespaces/a/services", Target(SERVICE, "a")),
        ("/api/v1/namespaces/a/services/b", Target(SERVICE, "a", "b")),
        ("/api/v1/namespaces/a/services/b/status", Target(SERVICE, "a", "b", "status")),
        ("/api/v1/namespaces", Target(NAMESPACE)),
        ("/api/v1/namespaces/a", Target(NAMESPACE, "", "a")),
        ("/api/v1/namespaces/a/status", Target(NAMESPACE, "", "a", "status")),
        ("/api/v1/namespaces/a/finalize", Target(NAMESPACE, "", "a", "finalize")),
        ("/apis/apps/v1/namespaces/a/deployments/b/scale", Target(DEPLOYMENT, "a", "b", "scale")),
        ("/apis/networking.k8s.io/v1/ipaddresses/10.96.0.1", Target(IP_ADDRESS, "", "10.96.0.1")),
        ("/api/v2/services", None),
        ("/api/v1/nonsense", None),
        ("/api/v1/services/b", None),
        ("/api/v1/namespaces/a/nodes", None),
        ("/api/v1/namespaces/a/services/b/scale", None),
        ("/api/v1/namespaces/a/services/b/status/c", None),
        ("/apis/apps/v1", None),
        ("/", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_paths(path: str, target: Target | None) -> None:
    assert resolve(path) == target


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/apis/nonsense.io", 404),
        ("POST", "/api", 404),
        ("PUT", "/api/v1/namespaces/default/services", 405),
        ("POST", "/api/v1/namespaces/default/services/kubernetes", 405),
        ("DELETE", "/api/v1/namespaces/default/services/kubernetes/status", 405),
        ("PUT", "/api/v1/namespaces/default/pods/x/binding", 405),
        ("GET", "/api/v1/namespaces/default/pods/x/portforward", 404),
    ],
)
async def test_what_is_not_there_and_what_cannot_be_done(handler: Handler, method: str, path: str, code: int) -> None:
    response, status = await send(handler, path, method)
    assert (response.status, status["kind"], status["code"]) == (code, "Status", code)


@pytest.mark.parametrize(
    ("path", "selector", "path_now", "selector_now"),
    [
        ("/api/v1/watch/services", "", "/api/v1/services", ""),
        ("/api/v1/watch/namespaces/a/services", "", "/api/v1/namespaces/a/services", ""),
        ("/api/v1/watch/namespaces/a/services/b", "", "/api/v1/namespaces/a/services", "metadata.name=b"),
        ("/api/v1/watch/namespaces/a", "", "/api/v1/namespaces", "metadata.name=a"),
        ("/apis/apps/v1/watch/namespaces/a/deployments/b", "x=y", "/apis/apps/v1/namespaces/a/deployments",
         "x=y,metadata.name=b"),
    ],
)  # fmt: skip
def test_a_watch_of_old_is_one_of_today(path: str, selector: str, path_now: str, selector_now: str) -> None:
    found = of_old(Request("GET", path, {"fieldSelector": selector} if selector else {}))
    assert found.path == path_now
    assert found.query == {"watch": "true"} | ({"fieldSelector": selector_now} if selector_now else {})


@pytest.mark.parametrize("path", ["/api/v1/namespaces/watch/services", "/api/v1/services", "/api/v1/watch"])
def test_what_is_no_watch_of_old_stays(path: str) -> None:
    request = Request("GET", path)
    assert of_old(request) is request


async def test_a_watch_of_old_brings_events(handler: Handler) -> None:
    response = await handler(Request("GET", "/api/v1/watch/namespaces/default/services/kubernetes", user=ADMIN))
    assert response.stream is not None
    assert b'"name":"kubernetes"' in await anext(aiter(response.stream))


# ── discovery ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_legacy_discovery_leads_to_every_kind(handler: Handler) -> None:
    _, groups = await send(handler, "/apis", accept="application/json")
    roots = ["/api/v1", *(f"/apis/{v['groupVersion']}" for g in groups["groups"] for v in g["versions"])]
    found = set()
    for root in roots:
        _, resources = await send(handler, root)
        group, _, version = resources["groupVersion"].rpartition("/")
        found |= {(group, version, r["name"]) for r in resources["resources"] if "/" not in r["name"]}
    assert found == set(KINDS)


async def test_aggregated_discovery_says_the_same_at_once(handler: Handler) -> None:
    found = set()
    for path in ("/api", "/apis"):
        response, document = await send(handler, path, accept=AGGREGATED)
        assert response.content_type == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        for group in document["items"]:
            name = group["metadata"].get("name", "")
            found |= {(name, v["version"], r["resource"]) for v in group["versions"] for r in v["resources"]}
    assert found == set(KINDS)


async def test_scale_is_discovered_with_its_own_group(handler: Handler) -> None:
    _, resources = await send(handler, "/apis/apps/v1")
    scale = next(r for r in resources["resources"] if r["name"] == "deployments/scale")
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")


async def test_openapi_is_served(handler: Handler) -> None:
    _, index = await send(handler, "/openapi/v3")
    url = index["paths"]["api/v1"]["serverRelativeURL"]
    response, _ = await send(handler, url.partition("?")[0])
    assert response.status == 200
    response, _ = await send(handler, "/openapi/v3/apis/nonsense/v1")
    assert response.status == 404


# ── warnings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_warnings_become_one_header_that_cannot_be_broken() -> None:
    assert header(["plain", 'say "a\\b"']) == '299 - "plain", 299 - "say \\"a\\\\b\\""'
    assert "\n" not in header(["two\nlines"])
    assert len(header(["x" * 100] * 100)) <= 4096


async def test_a_body_that_is_no_object_is_a_bad_request(handler: Handler) -> None:
    for body in (b"", b"{", b"[]", b"7"):
        response = await handler(Request("POST", CONFIG_MAP.path("default"), body=body, user=ADMIN))
        assert response.status == 400, body
