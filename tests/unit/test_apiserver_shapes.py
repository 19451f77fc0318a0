"""Objects of the wrong shape: whatever stands where something else belongs, the answer says whose fault it is."""

from __future__ import annotations

import msgspec
import pytest

from kubesvc.api import registry
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.transport import Request
from support.apiserver import ADMIN
from support.shapes import JSON, METADATA, QUESTIONS, SAMPLES, SCALE, misshapen

KINDS = [pytest.param(kind, id=kind.plural) for kind in registry.stored() if kind.plural in SAMPLES]
MERGE, STRATEGIC, APPLY = (
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)


async def send(
    server: ApiServer, method: str, path: str, body: JSON, media: str = "application/json", **query: str
) -> int:
    """The status, which isn't the server's failure."""
    headers = {"content-type": media}
    answer = await server.handler(Request(method, path, query, headers, msgspec.json.encode(body), ADMIN))
    assert answer.status < 500, (method, path, media, body, answer.body)
    return answer.status


async def clear(server: ApiServer, path: str) -> None:
    await send(server, "PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
    await send(server, "DELETE", path, {"gracePeriodSeconds": 0})


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_created_in_another_shape_is_no_failure_of_the_server(
    server: ApiServer, kind: registry.Kind
) -> None:
    """Nor is what comes after it, whether it was taken or not."""
    namespace = "default" if kind.namespaced else ""
    for tree in misshapen({"metadata": {"name": "n", **METADATA}, **SAMPLES[kind.plural]}, each=2):
        if await send(server, "POST", kind.path(namespace), tree) == 201:
            await clear(server, kind.path(namespace, "n"))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_changed_into_another_shape_is_no_failure_of_the_server(
    server: ApiServer, kind: registry.Kind
) -> None:
    """By a PUT, a patch or an apply."""
    name = "databases.example.com" if kind is registry.CUSTOM_RESOURCE_DEFINITION else "n"
    namespace = "default" if kind.namespaced else ""
    path = kind.path(namespace, name)
    tree = {"apiVersion": kind.api_version, "kind": kind.kind, **SAMPLES[kind.plural], "metadata": {"name": name}}
    if kind is not registry.CERTIFICATE_SIGNING_REQUEST:
        assert await send(server, "POST", kind.path(namespace), tree) == 201
    for other in misshapen(tree | {"metadata": {"name": name, **METADATA}}, each=1):
        await send(server, "PUT", path, other, dryRun="All")
        await send(server, "PATCH", path, other, MERGE, dryRun="All")
        await send(server, "PATCH", path, other, STRATEGIC, dryRun="All")
    for other in misshapen(tree, each=1):
        await send(server, "PATCH", path, other, APPLY, dryRun="All", fieldManager="x", force="true")


@pytest.mark.parametrize("path", QUESTIONS)
async def test_what_is_asked_in_another_shape_is_no_failure_of_the_server(server: ApiServer, path: str) -> None:
    await send(server, "POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "n"}, **SAMPLES["pods"]})
    for tree in misshapen(QUESTIONS[path], each=18):
        await send(server, "POST", path, tree, dryRun="All")


async def test_a_scale_of_another_shape_is_no_failure_of_the_server(server: ApiServer) -> None:
    path = registry.DEPLOYMENT.path("default", "n")
    made = {"metadata": {"name": "n"}, **SAMPLES["deployments"]}
    assert await send(server, "POST", registry.DEPLOYMENT.path("default"), made) == 201
    for tree in misshapen(SCALE, each=18):
        await send(server, "PUT", f"{path}/scale", tree)
        await send(server, "PATCH", f"{path}/scale", tree, MERGE)


async def test_of_very_many_wrong_values_the_first_are_named(server: ApiServer) -> None:
    tree = {"metadata": {"name": "n"}, "data": {f"k{number}": 1 for number in range(1000)}}
    body = msgspec.json.encode(tree)
    answer = await server.handler(Request("POST", "/api/v1/namespaces/default/configmaps", body=body, user=ADMIN))
    assert answer.status == 422
    assert len(msgspec.json.decode(answer.body)["details"]["causes"]) == 100


async def test_a_null_in_a_list_is_an_empty_item_as_upstream(server: ApiServer) -> None:
    tree = {"metadata": {"name": "n"}, "spec": {"containers": [{"name": "c", "image": "i", "args": ["a", None]}]}}
    assert await send(server, "POST", "/api/v1/namespaces/default/pods", tree) == 201
    answer = await server.handler(Request("GET", "/api/v1/namespaces/default/pods/n", user=ADMIN))
    assert msgspec.json.decode(answer.body)["spec"]["containers"][0]["args"] == ["a", ""]
