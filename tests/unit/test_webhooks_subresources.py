"""Webhooks about what isn't written as it is sent: evictions, bindings, tokens, scales, and what connects to a pod."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
import pytest

from kubesvc.api.errors import BadRequest
from kubesvc.api.registry import DEPLOYMENT, NODE, POD
from kubesvc.api.registry import MUTATING_WEBHOOK_CONFIGURATION as MUTATING
from kubesvc.api.registry import VALIDATING_WEBHOOK_CONFIGURATION as VALIDATING
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request
from support.agents import add_node
from support.apiserver import ADMIN, local_server
from support.webhook import JSON, Webhook, patch

REFUSED: JSON = {"allowed": False, "status": {"message": "not today"}}
CONTAINERS = [{"name": "main", "image": "host", "ports": [{"containerPort": 8080}]}, {"name": "other", "image": "host"}]


class Setting:
    """A cluster with pod `web`, which says that it runs on node `n1`, and Deployment `web`."""

    def __init__(self, server: ApiServer, hook: Webhook) -> None:
        self.server, self.hook = server, hook
        self.session = Session(LocalTransport(server.handler, ADMIN))

    async def furnish(self) -> None:
        await add_node(self.session, "n1")
        address = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
        await self.session.patch(NODE, "", "n1", {"status": address}, subresource="status")
        meta = {"name": "web", "namespace": "default"}
        await self.session.create(POD, {"metadata": meta, "spec": {"containers": CONTAINERS, "nodeName": "n1"}})
        running = [{"name": c["name"], "state": {"running": {}}, "image": "host", "imageID": ""} for c in CONTAINERS]
        status = {"phase": "Running", "podIP": "10.244.0.9", "containerStatuses": running}
        await self.session.patch(POD, "default", "web", {"status": status}, subresource="status")
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": CONTAINERS}}
        spec = {"selector": {"matchLabels": {"app": "web"}}, "replicas": 2, "template": template}
        await self.session.create(DEPLOYMENT, {"metadata": meta, "spec": spec})

    async def configure(self, resource: str, operation: str, kind: Any = VALIDATING, group: str = "") -> None:
        rule = {"operations": [operation], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}
        await self.session.create(kind, {"metadata": {"name": "c"}, "webhooks": [self.hook.entry([rule])]})

    async def ask(
        self, method: str, path: str, body: JSON | None = None, *, media: str = "application/json"
    ) -> tuple[int, JSON]:
        """(status, the object in the answer). A GET asks for an upgrade, too."""
        path, _, raw = path.partition("?")
        headers = {"content-type": media, "connection": "upgrade", "upgrade": "websocket"}
        encoded = msgspec.json.encode(body) if body is not None else b""
        whole, query = unquote(f"/{path}"), dict(parse_qsl(raw))
        request = Request(method, whole, query, headers, encoded, ADMIN, raw_query=raw, raw_path=f"/{path}")
        answer = await self.server.handler(request)
        return answer.status, msgspec.json.decode(answer.body)

    async def refused(self, method: str, path: str, body: JSON | None = None) -> JSON:
        """What the webhook was shown of a request that it refuses."""
        self.hook.decide = lambda request: REFUSED
        status, answer = await self.ask(method, path, body)
        assert (status, answer["message"]) == (400, 'admission webhook "a.example.com" denied the request: not today')
        (asked,) = self.hook.asked
        return asked


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    async with local_server() as server, Webhook(tmp_path).serving() as hook:
        made = Setting(server, hook)
        await made.furnish()
        yield made


PODS, ACCOUNTS = "api/v1/namespaces/default/pods", "api/v1/namespaces/default/serviceaccounts"
DEPLOYMENTS = "apis/apps/v1/namespaces/default/deployments"
EVICTION: JSON = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}


async def test_an_eviction_is_asked_about_as_one_and_not_as_a_deletion(setting: Setting) -> None:
    await setting.configure("pods/eviction", "CREATE")
    asked = await setting.refused("POST", f"{PODS}/web/eviction", EVICTION)
    assert asked["requestKind"] == asked["kind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
    assert asked["requestResource"] == asked["resource"] == {"group": "", "version": "v1", "resource": "pods"}
    assert (asked["subResource"], asked["operation"], asked["name"]) == ("eviction", "CREATE", "web")
    assert (asked["object"]["metadata"], asked["oldObject"]) == ({"name": "web"}, None)
    await setting.session.delete(POD, "default", "web", grace_seconds=0)  # which nobody refuses


async def test_who_asks_about_deletions_is_not_asked_about_evictions(setting: Setting) -> None:
    await setting.configure("pods", "DELETE")
    assert (await setting.ask("POST", f"{PODS}/web/eviction", EVICTION))[0] == 201
    assert setting.hook.asked == []


async def test_an_eviction_gets_the_grace_that_a_webhook_gives(setting: Setting) -> None:
    await setting.configure("pods/eviction", "CREATE", MUTATING)
    grace = {"op": "add", "path": "/deleteOptions", "value": {"gracePeriodSeconds": 7}}
    setting.hook.decide = lambda request: patch(grace)
    assert (await setting.ask("POST", f"{PODS}/web/eviction", EVICTION))[0] == 201
    assert (await setting.session.get(POD, "default", "web"))["metadata"]["deletionGracePeriodSeconds"] == 7


async def test_what_a_webhook_makes_of_an_eviction_must_still_be_one(setting: Setting) -> None:
    await setting.configure("pods/eviction", "CREATE", MUTATING)
    setting.hook.decide = lambda request: patch({"op": "add", "path": "/deleteOptions", "value": ["now"]})
    status, answer = await setting.ask("POST", f"{PODS}/web/eviction", EVICTION)
    assert (status, "deleteOptions" in answer["message"]) == (422, True)
    setting.hook.decide = lambda request: patch({"op": "replace", "path": "/metadata/name", "value": "other"})
    status, answer = await setting.ask("POST", f"{PODS}/web/eviction", EVICTION)
    assert (status, "its patch changes metadata.name" in answer["message"]) == (500, True)
    assert "deletionTimestamp" not in (await setting.session.get(POD, "default", "web"))["metadata"]


async def test_a_binding_is_asked_about(setting: Setting) -> None:
    await setting.session.create(
        POD, {"metadata": {"name": "free", "namespace": "default"}, "spec": {"containers": CONTAINERS}}
    )
    await setting.configure("pods/binding", "CREATE")
    asked = await setting.refused("POST", f"{PODS}/free/binding", {"target": {"kind": "Node", "name": "n1"}})
    assert (asked["kind"]["kind"], asked["object"]["target"]["name"]) == ("Binding", "n1")
    assert "nodeName" not in (await setting.session.get(POD, "default", "free"))["spec"]


async def test_a_token_is_asked_about_and_its_time_may_be_changed(setting: Setting) -> None:
    await setting.configure("serviceaccounts/token", "CREATE", MUTATING)
    setting.hook.decide = lambda request: patch({"op": "replace", "path": "/spec/expirationSeconds", "value": 900})
    status, made = await setting.ask("POST", f"{ACCOUNTS}/default/token", {"spec": {"expirationSeconds": 3600}})
    assert (status, made["spec"]["expirationSeconds"], bool(made["status"]["token"])) == (201, 900, True)
    assert setting.hook.asked[0]["kind"]["kind"] == "TokenRequest"
    setting.hook.decide = lambda request: patch({"op": "replace", "path": "/spec/expirationSeconds", "value": 1})
    status, answer = await setting.ask("POST", f"{ACCOUNTS}/default/token", {"spec": {}})
    assert (status, "less than 10 minutes" in answer["message"]) == (422, True)


async def test_a_scale_is_asked_about_as_one_and_not_as_an_update(setting: Setting) -> None:
    await setting.configure("deployments/scale", "UPDATE", group="apps")
    setting.hook.decide = lambda request: REFUSED
    change = {"spec": {"replicas": 5}}
    status, _ = await setting.ask("PATCH", f"{DEPLOYMENTS}/web/scale", change, media="application/merge-patch+json")
    (asked,) = setting.hook.asked
    assert (status, asked["kind"]["kind"], asked["requestResource"]["resource"]) == (400, "Scale", "deployments")
    assert (asked["object"]["spec"], asked["oldObject"]["spec"]) == ({"replicas": 5}, {"replicas": 2})
    await setting.session.patch(DEPLOYMENT, "default", "web", change)  # an UPDATE, which it isn't asked about
    assert len(setting.hook.asked) == 1


async def test_a_scale_becomes_what_a_webhook_makes_of_it(setting: Setting) -> None:
    await setting.configure("deployments/scale", "UPDATE", MUTATING, "apps")
    setting.hook.decide = lambda request: patch({"op": "replace", "path": "/spec/replicas", "value": 3})
    path = f"{DEPLOYMENTS}/web/scale"
    _, scale = await setting.ask("GET", path)
    status, answer = await setting.ask("PUT", path, {**scale, "spec": {"replicas": 9}})
    assert (status, answer["spec"]["replicas"]) == (200, 3)
    assert (await setting.session.get(DEPLOYMENT, "default", "web"))["spec"]["replicas"] == 3
    setting.hook.decide = lambda request: patch({"op": "replace", "path": "/spec/replicas", "value": -1})
    status, answer = await setting.ask("PUT", path, {**scale, "metadata": {"name": "web"}, "spec": {"replicas": 4}})
    assert (status, "greater than or equal to 0" in answer["message"]) == (422, True)


@pytest.mark.parametrize(
    ("path", "kind", "shown"),
    [
        (
            "exec?container=main&command=ls&command=-l&stdout=true&stdin=false",
            "PodExecOptions",
            {"stdout": True, "container": "main", "command": ["ls", "-l"]},
        ),
        (
            "attach?container=main&stdin=1&tty=true",
            "PodAttachOptions",
            {"stdin": True, "tty": True, "container": "main"},
        ),
        ("portforward?ports=80&ports=81", "PodPortForwardOptions", {"ports": [80, 81]}),
        ("proxy/a%20b/?x=y", "PodProxyOptions", {"path": "/a b/"}),
    ],
    ids=["exec", "attach", "portforward", "proxy"],
)
async def test_what_connects_to_a_pod_is_asked_about(setting: Setting, path: str, kind: str, shown: JSON) -> None:
    await setting.configure("*/*", "CONNECT")
    asked = await setting.refused("GET", f"{PODS}/web/{path}")
    assert (asked["operation"], asked["name"], asked["options"]) == ("CONNECT", "web", None)
    assert asked["object"] == {"apiVersion": "v1", "kind": kind, **shown}
    assert (asked["subResource"], asked["resource"]["resource"]) == (path.partition("?")[0].partition("/")[0], "pods")


async def test_what_is_asked_for_becomes_what_a_webhook_makes_of_it(setting: Setting) -> None:
    """The agent is asked with it."""
    asked: list[str] = []

    async def upgrade(node: object, method: str, path: str, headers: object) -> None:
        asked.append(path)
        raise BadRequest("heard")

    async def forward(node: object, method: str, path: str, headers: object, content: object) -> None:
        asked.append(path)
        raise BadRequest("heard")

    setting.server._state.nodes.upgrade = upgrade  # type: ignore[assignment,method-assign]
    setting.server._state.nodes.forward = forward  # type: ignore[assignment,method-assign]
    await setting.configure("*/*", "CONNECT", MUTATING)
    setting.hook.decide = lambda request: patch(
        {"op": "add", "path": "/path", "value": "/c d"}
        if request["subResource"] == "proxy"
        else {"op": "add", "path": "/container", "value": "other"}
    )
    await setting.ask("GET", f"{PODS}/web/exec?container=main&command=ls&command=-l&stdout=true")
    await setting.ask("GET", f"{PODS}/web/proxy/a?x=y")
    assert asked == [
        "/exec/default/web/other?stdout=true&command=ls&command=-l",
        "/proxy/http/10.244.0.9/8080/c%20d?x=y",
    ]
