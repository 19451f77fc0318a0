"""Admission webhooks over real HTTPS: who is asked, what they may change, what happens when they fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubesvc.api.errors import ApiError, BadRequest, InternalError, Invalid
from kubesvc.api.registry import CONFIG_MAP, ENDPOINT_SLICE, NAMESPACE, SERVICE
from kubesvc.api.registry import MUTATING_WEBHOOK_CONFIGURATION as MUTATING
from kubesvc.api.registry import VALIDATING_WEBHOOK_CONFIGURATION as VALIDATING
from kubesvc.apiserver import stored
from kubesvc.apiserver.webhooks import calling
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request, User
from kubesvc.store.memory import MemoryStore
from kubesvc.store.protocol import Write
from support.apiserver import ADMIN, local_server
from support.webhook import JSON, Webhook, patch

RULE: JSON = {"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"],
              "resources": ["configmaps"]}  # fmt: skip


class Setting:
    def __init__(self, handler: Any, hook: Webhook) -> None:
        self.handler, self.hook = handler, hook
        self.session = Session(LocalTransport(handler, ADMIN))

    async def configure(self, kind: Any = VALIDATING, *, called: str = "c", path: str = "/", **more: Any) -> JSON:
        entry = self.hook.entry(**{"rules": [RULE], "path": path, **more})
        return await self.session.create(kind, {"metadata": {"name": called}, "webhooks": [entry]})

    async def make(self, name: str = "m", *, namespace: str = "default", **more: Any) -> JSON:
        tree = {
            "metadata": {"name": name, "namespace": namespace, **more.pop("metadata", {})},
            "data": {"a": "b"},
            **more,
        }
        return await self.session.create(CONFIG_MAP, tree)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    async with local_server() as server, Webhook(tmp_path).serving() as hook:
        yield Setting(server.handler, hook)


@contextmanager
def unheard() -> Iterator[int]:
    """A port that nobody listens at, nor can meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_a_refusal_is_the_clients_answer(setting: Setting) -> None:
    await setting.configure()
    setting.hook.decide = lambda request: {"allowed": False, "status": {"message": "not today", "code": 403}}
    with pytest.raises(ApiError) as error:
        await setting.make()
    assert error.value.message == 'admission webhook "a.example.com" denied the request: not today'
    assert error.value.code == 403
    setting.hook.decide = lambda request: {"allowed": False}
    with pytest.raises(ApiError, match="denied the request without explanation") as error:
        await setting.make()
    assert error.value.code == 400


async def test_the_review_says_who_wants_what(setting: Setting) -> None:
    await setting.configure()
    user = User("alice", ("system:masters", "people"))
    await Session(LocalTransport(setting.handler, user)).create(
        CONFIG_MAP, {"metadata": {"name": "m", "namespace": "default"}, "data": {"a": "b"}}
    )
    await setting.session.patch(CONFIG_MAP, "default", "m", {"data": {"a": "c"}})
    await setting.session.delete(CONFIG_MAP, "default", "m")
    made, changed, gone = setting.hook.asked
    assert made["userInfo"] == {"username": "alice", "groups": [*user.groups, "system:authenticated"]}
    assert [r["operation"] for r in setting.hook.asked] == ["CREATE", "UPDATE", "DELETE"]
    assert (made["name"], made["namespace"], made["dryRun"], made["oldObject"]) == ("m", "default", False, None)
    assert made["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert made["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (changed["object"]["data"], changed["oldObject"]["data"]) == ({"a": "c"}, {"a": "b"})
    assert (gone["object"], gone["oldObject"]["data"]) == (None, {"a": "c"})


async def test_a_mutating_webhook_changes_what_is_then_validated(setting: Setting) -> None:
    await setting.configure(MUTATING)
    setting.hook.decide = lambda request: patch({"op": "add", "path": "/data/seen", "value": "yes"})
    assert (await setting.make())["data"] == {"a": "b", "seen": "yes"}
    setting.hook.decide = lambda request: patch({"op": "add", "path": "/data/not allowed", "value": "x"})
    with pytest.raises(Invalid, match="not allowed"):
        await setting.make("n")
    setting.hook.decide = lambda request: patch({"op": "replace", "path": "/metadata/name", "value": "x"})
    with pytest.raises(InternalError, match="its patch changes metadata.name"):
        await setting.make("n")
    setting.hook.decide = lambda request: patch({"op": "remove", "path": "/nothing"})
    with pytest.raises(InternalError, match="its patch can't be applied"):
        await setting.make("n")


async def test_validating_webhooks_see_what_mutating_ones_made(setting: Setting) -> None:
    await setting.configure(MUTATING, path="/mutate")
    await setting.configure(VALIDATING, path="/validate")
    setting.hook.decide = lambda request: (
        patch({"op": "add", "path": "/data/seen", "value": "yes"})
        if request["path"] == "/mutate"
        else {"allowed": True}
    )
    await setting.make()
    first, second = setting.hook.asked
    assert (first["object"]["data"], second["object"]["data"]) == ({"a": "b"}, {"a": "b", "seen": "yes"})


async def test_one_that_asks_for_it_is_called_again_after_a_later_change(setting: Setting) -> None:
    await setting.configure(MUTATING, called="a", path="/first", reinvocationPolicy="IfNeeded")
    await setting.configure(MUTATING, called="b", path="/second")
    setting.hook.decide = lambda request: (
        patch({"op": "add", "path": "/data/second", "value": "x"})
        if request["path"] == "/second"
        else {"allowed": True}
    )
    await setting.make()
    assert [r["path"] for r in setting.hook.asked] == ["/first", "/second", "/first"]


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        pytest.param({}, 1, id="everything"),
        pytest.param({"objectSelector": {"matchLabels": {"a": "b"}}}, 0, id="labels it has not"),
        pytest.param({"objectSelector": {"matchLabels": {"x": "y"}}}, 1, id="labels it has"),
        pytest.param({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}, 1, id="in"),
        pytest.param({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}, 0, id="out"),
        pytest.param({"rules": [{**RULE, "operations": ["UPDATE"]}]}, 0, id="another operation"),
        pytest.param({"rules": [{**RULE, "resources": ["secrets"]}]}, 0, id="another resource"),
        pytest.param({"rules": [{**RULE, "resources": ["configmaps/status"]}]}, 0, id="a subresource"),
        pytest.param({"rules": [{**RULE, "resources": ["*"]}]}, 1, id="every resource"),
        pytest.param({"rules": [{**RULE, "apiGroups": ["apps"]}]}, 0, id="another group"),
        pytest.param({"rules": [{**RULE, "apiVersions": ["v2"]}]}, 0, id="another version"),
        pytest.param({"rules": [{**RULE, "scope": "Cluster"}]}, 0, id="another scope"),
        pytest.param({"matchConditions": [{"name": "a", "expression": "object.data.a == 'b'"}]}, 1, id="a condition"),
        pytest.param({"matchConditions": [{"name": "a", "expression": "request.dryRun"}]}, 0, id="one that is false"),
    ],
)
async def test_who_is_asked(setting: Setting, change: JSON, asked: int) -> None:
    await setting.configure(**change)
    await setting.make(metadata={"labels": {"x": "y"}})
    assert len(setting.hook.asked) == asked


async def test_one_that_fails_fails_the_request_or_is_ignored(setting: Setting) -> None:
    made = await setting.configure()
    setting.hook.status = 500
    with pytest.raises(InternalError, match='failed calling webhook "a.example.com"'):
        await setting.make()
    made["webhooks"][0]["failurePolicy"] = "Ignore"
    await setting.session.update(VALIDATING, made)
    await setting.make()


async def test_one_that_hangs_is_given_up_after_its_timeout(setting: Setting) -> None:
    await setting.configure(timeoutSeconds=1)
    hanging = asyncio.get_running_loop().create_future()
    setting.hook.decide = lambda request: hanging
    with pytest.raises(InternalError, match="no answer in 1 s: context deadline exceeded"):
        await setting.make()
    hanging.set_result({"allowed": True})


async def test_a_loopback_address_is_said_to_be_the_servers_own(setting: Setting) -> None:
    with unheard() as port:
        await setting.configure(clientConfig={"url": f"https://127.0.0.1:{port}/", "caBundle": setting.hook.bundle})
        with pytest.raises(InternalError, match="can't be reached: .*; that is the API server's own loopback"):
            await setting.make()


async def test_a_certificate_of_another_authority_is_not_believed(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Webhook(tmp_path / "other")
    await setting.configure(
        clientConfig={"url": f"https://127.0.0.1:{setting.hook.port}/", "caBundle": stranger.bundle}
    )
    with pytest.raises(InternalError, match="(?i)certificate"):
        await setting.make()
    assert setting.hook.asked == []


async def test_a_dry_run_is_told_so_and_its_warnings_are_passed_on(setting: Setting) -> None:
    await setting.configure()
    setting.hook.decide = lambda request: {"allowed": True, "warnings": ["careful"]}
    tree = {"metadata": {"name": "m"}, "data": {}}
    headers = {"content-type": "application/json"}
    body = msgspec.json.encode(tree)
    response = await setting.handler(
        Request("POST", CONFIG_MAP.path("default"), {"dryRun": "All"}, headers, body, ADMIN)
    )
    assert (response.status, response.headers["Warning"]) == (201, '299 - "careful"')
    assert setting.hook.asked[0]["dryRun"] is True
    assert setting.hook.asked[0]["options"]["dryRun"] == ["All"]


async def test_answers_that_are_none_fail(setting: Setting) -> None:
    await setting.configure()
    setting.hook.decide = lambda request: {"uid": "another", "allowed": True}
    with pytest.raises(InternalError, match="expected response.uid"):
        await setting.make()
    setting.hook.decide = lambda request: patch({"op": "add", "path": "/data/x", "value": "y"})
    with pytest.raises(InternalError, match="must not return a patch"):
        await setting.make()


async def test_a_wrong_configuration_can_be_taken_back(setting: Setting) -> None:
    everything = [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]
    await setting.configure(rules=everything)
    setting.hook.decide = lambda request: {"allowed": False}
    with pytest.raises(BadRequest, match="denied"):
        await setting.session.create(NAMESPACE, {"metadata": {"name": "x"}})
    await setting.session.delete(VALIDATING, "", "c")
    await setting.make()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"name": "short"}, "three segments", id="name"),
        pytest.param({"clientConfig": {"url": "http://x/"}}, "'https' is the only allowed URL scheme", id="plain HTTP"),
        pytest.param({"clientConfig": {}}, "exactly one of url or service is required", id="no client"),
        pytest.param({"sideEffects": "Some"}, "Unsupported value", id="side effects"),
        pytest.param({"admissionReviewVersions": ["v1beta1"]}, "must include at least one of v1", id="versions"),
        pytest.param({"timeoutSeconds": 31}, "between 1 and 30", id="timeout"),
        pytest.param(
            {"matchConditions": [{"name": "a", "expression": "object.x =="}]},
            r"matchConditions\[0\].expression: Invalid value: .* compilation failed",
            id="condition",
        ),
        pytest.param(
            {"matchConditions": [{"expression": "true"}]},
            r"matchConditions\[0\].name: Required",
            id="condition without a name",
        ),
        pytest.param(
            {"matchConditions": [{"name": "a", "expression": "true"}] * 2},
            r"\[1\].name: Duplicate value",
            id="condition twice",
        ),
    ],
)
async def test_a_configuration_is_refused_in_upstreams_words(setting: Setting, change: JSON, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        await setting.configure(**change)


async def test_a_condition_that_cannot_be_evaluated_is_told(setting: Setting) -> None:
    conditions = [{"name": "a", "expression": "authorizer.path('/x').check('get').allowed()"}]
    entry = setting.hook.entry([RULE], matchConditions=conditions)
    body = msgspec.json.encode({"metadata": {"name": "c"}, "webhooks": [entry]})
    made = await setting.handler(Request("POST", VALIDATING.path(), body=body, user=ADMIN))
    assert made.status == 201, made.body
    assert "webhook a.example.com: matchConditions[0] can't be evaluated" in made.headers["Warning"]


async def test_webhooks_are_there_again_after_a_restart(tmp_path: Path) -> None:
    store = MemoryStore()
    async with Webhook(tmp_path).serving() as hook:
        async with local_server(store) as server:
            await Setting(server.handler, hook).configure()
        async with local_server(store) as server:
            await Setting(server.handler, hook).make()
    assert len(hook.asked) == 1


# ── a Service as a webhook ───────────────────────────────────────────────────────────────────────────────────────────

HOST = "hook.shop.svc"


class Shop:
    """Webhooks behind Service shop/hook, whose one endpoint is a port of this machine's loopback."""

    def __init__(self, store: MemoryStore, setting: Setting) -> None:
        self.store, self.setting = store, setting

    async def open(self, hook: Webhook, *, name: str = "hook", port: int = 443, ready: bool = True) -> None:
        """Port `port` of Service `name` leads to `hook`. The slice is put into the store: the API has none on loopback,
        which means another machine to everybody who reads it."""
        ports = [{"name": "https", "port": port, "targetPort": hook.port}]
        await self.setting.session.create(
            SERVICE, {"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": ports}}
        )
        slice_ = {
            "metadata": {"name": f"{name}-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "https", "protocol": "TCP", "port": hook.port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}],
        }
        key = stored.key(ENDPOINT_SLICE, "shop", f"{name}-1")
        await self.store.commit([Write(key, stored.encode(ENDPOINT_SLICE, slice_), 0)])

    async def configure(self, bundle: str, kind: Any = VALIDATING, **service: Any) -> JSON:
        service = {"namespace": "shop", "name": "hook", **service}
        return await self.setting.configure(kind, clientConfig={"service": service, "caBundle": bundle})


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    store = MemoryStore()
    async with local_server(store) as server, Webhook(tmp_path, HOST).serving() as hook:
        setting = Setting(server.handler, hook)
        await setting.session.create(NAMESPACE, {"metadata": {"name": "shop"}})
        yield Shop(store, setting)


async def test_a_service_is_called_at_a_ready_endpoint_on_port_443_and_path_slash(shop: Shop) -> None:
    hook = shop.setting.hook
    await shop.open(hook)
    made = await shop.configure(hook.bundle)
    assert made["webhooks"][0]["clientConfig"]["service"] == {"namespace": "shop", "name": "hook", "port": 443}
    await shop.setting.make()
    (asked,) = hook.asked
    assert (asked["path"], asked["query"], asked["host"]) == ("/", "timeout=10s", f"{HOST}:443")


async def test_a_service_may_say_its_port_and_path_and_change_what_is_written(shop: Shop) -> None:
    hook = shop.setting.hook
    await shop.open(hook, port=8443)
    await shop.configure(hook.bundle, MUTATING, port=8443, path="/mutate/maps")
    hook.decide = lambda request: patch({"op": "add", "path": "/data/seen", "value": request["path"]})
    assert (await shop.setting.make())["data"]["seen"] == "/mutate/maps"


async def test_a_services_certificate_must_be_of_its_authority(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    await shop.open(shop.setting.hook)
    await shop.configure(Webhook(tmp_path / "other", HOST).bundle)
    with pytest.raises(InternalError) as error:
        await shop.setting.make()
    for part in ('webhook "a.example.com"', f'Post "https://{HOST}:443/?timeout=10s"', "failed to verify certificate",
                 f"must be for {HOST} and signed by one of clientConfig.caBundle"):  # fmt: skip
        assert part in error.value.message
    assert shop.setting.hook.asked == []


async def test_a_services_certificate_must_be_for_its_name(shop: Shop, tmp_path: Path) -> None:
    """Also on a connection that was made before, under the name that it is for."""
    hook = shop.setting.hook
    await shop.open(hook)
    await shop.open(hook, name="other")
    await shop.configure(hook.bundle)
    await shop.setting.make("first")
    await shop.configure(hook.bundle, MUTATING, name="other")
    with pytest.raises(InternalError, match=r"must be for other\.shop\.svc"):
        await shop.setting.make("second")
    assert len(hook.asked) == 1


@pytest.mark.parametrize("form", ["url", "service"])
async def test_without_a_bundle_the_systems_authorities_are_believed(
    shop: Shop, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").mkdir()
    calling._trust.cache_clear()
    async with Webhook(tmp_path / "url").serving() as other:
        hook = other if form == "url" else shop.setting.hook
        await shop.open(shop.setting.hook)
        service = {"namespace": "shop", "name": "hook"}
        config = {"url": f"https://127.0.0.1:{other.port}/"} if form == "url" else {"service": service}
        await shop.setting.configure(clientConfig=config)
        with pytest.raises(InternalError, match="this system's authorities"):
            await shop.setting.make("unknown")
        authority = (tmp_path / "url" if form == "url" else tmp_path) / "ca.crt"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        calling._trust.cache_clear()
        await shop.setting.make("known")
        assert len(hook.asked) == 1
    calling._trust.cache_clear()


@pytest.mark.parametrize(
    ("opened", "wanted", "text"),
    [
        pytest.param({"name": "other"}, {}, 'service "hook" not found in namespace "shop": create it', id="no Service"),
        pytest.param({"port": 8443}, {}, 'no service port 443 found for service "hook": give Service shop/hook that'
                     " port, or correct clientConfig.service.port", id="no such port"),
        pytest.param({"ready": False}, {}, 'no endpoints available for service "hook:443": see that a pod of Service'
                     " shop/hook is ready", id="nobody ready"),
    ],
)  # fmt: skip
async def test_what_a_service_lacks_is_said_with_the_remedy(shop: Shop, opened: JSON, wanted: JSON, text: str) -> None:
    await shop.open(shop.setting.hook, **opened)
    await shop.configure(shop.setting.hook.bundle, **wanted)
    with pytest.raises(InternalError) as error:
        await shop.setting.make()
    assert 'failed calling webhook "a.example.com"' in error.value.message
    assert text in error.value.message


async def test_a_service_whose_endpoint_is_gone_is_said_by_its_address(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    gone = Webhook(tmp_path / "gone", HOST)
    with unheard() as gone.port:
        await shop.open(gone)
        await shop.configure(gone.bundle)
        with pytest.raises(InternalError, match=f"127.0.0.1:{gone.port} can't be reached"):
            await shop.setting.make()


async def test_an_external_name_is_called_under_the_services_own(shop: Shop) -> None:
    hook = shop.setting.hook
    spec = {"type": "ExternalName", "externalName": "localhost"}
    await shop.setting.session.create(SERVICE, {"metadata": {"name": "hook", "namespace": "shop"}, "spec": spec})
    await shop.configure(hook.bundle, port=hook.port)
    await shop.setting.make()
    assert len(hook.asked) == 1


async def test_a_bundle_that_is_none_is_said(shop: Shop) -> None:
    await shop.open(shop.setting.hook)
    await shop.configure("bm8gY2VydGlmaWNhdGU=")
    with pytest.raises(InternalError, match="caBundle can't be read"):
        await shop.setting.make()


@pytest.mark.parametrize(
    ("service", "text"),
    [
        ({"port": 0}, "port is not valid: must be between 1 and 65535, inclusive"),
        ({"path": "x"}, "must start with a '/'"),
        ({"path": "/a//b"}, r"segment\[1\] may not be empty"),
        ({"path": "/a/B_"}, r"segment\[1\]: a lowercase RFC 1123 subdomain"),
        ({"name": ""}, "service name is required"),
    ],
)
async def test_a_service_is_refused_in_upstreams_words(shop: Shop, service: JSON, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        await shop.configure("", **service)
