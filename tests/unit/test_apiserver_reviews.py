"""Questions about the caller: who it is, what it may do; half a question is refused."""

from __future__ import annotations

import msgspec
import pytest

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.transport import Request, User
from kubesvc.store.memory import MemoryStore
from support.apiserver import local_server

ALICE = User("alice", ("system:masters", "system:authenticated"))
RESOURCE = {"resourceAttributes": {"namespace": "default", "verb": "delete", "resource": "services"}}
PATH = {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}


async def ask(
    server: ApiServer,
    kind: Kind,
    spec: JSON | None,
    user: User | None = ALICE,
    namespace: str = "",
    method: str = "POST",
) -> tuple[int, JSON]:
    body = msgspec.json.encode({} if spec is None else {"spec": spec})
    answer = await server.handler(Request(method, kind.path(namespace), {}, {}, body, user=user))
    return answer.status, msgspec.json.decode(answer.body)


async def test_who_asks_is_told_who_it_is(server: ApiServer) -> None:
    code, found = await ask(server, registry.SELF_SUBJECT_REVIEW, None)
    assert (code, found["apiVersion"], found["kind"]) == (201, "authentication.k8s.io/v1", "SelfSubjectReview")
    assert found["status"] == {"userInfo": {"username": "alice", "groups": ["system:masters", "system:authenticated"]}}


@pytest.mark.parametrize("spec", [RESOURCE, PATH], ids=["a resource", "a path"])
async def test_masters_may_do_everything(server: ApiServer, spec: JSON) -> None:
    code, found = await ask(server, registry.SELF_SUBJECT_ACCESS_REVIEW, spec)
    assert (code, found["spec"], found["status"]) == (201, spec, {"allowed": True})
    _, found = await ask(server, registry.SUBJECT_ACCESS_REVIEW, {**spec, "user": "bob"})
    assert found["status"]["allowed"] is False
    _, found = await ask(server, registry.SELF_SUBJECT_RULES_REVIEW, {"namespace": "default"})
    assert {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]} in found["status"]["resourceRules"]


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        (RESOURCE, False),
        (PATH, False),
        ({"nonResourceAttributes": {"path": "/readyz", "verb": "get"}}, True),
        ({"nonResourceAttributes": {"path": "/version", "verb": "get"}}, True),
    ],
)
async def test_nobody_may_ask_for_health_and_version_alone(server: ApiServer, spec: JSON, allowed: bool) -> None:
    """The answer is what happens."""
    for who in ({"user": "system:anonymous"}, {"groups": ["system:unauthenticated"]}):
        _, found = await ask(server, registry.SUBJECT_ACCESS_REVIEW, {**spec, **who})
        assert found["status"]["allowed"] == allowed
    path = spec.get("nonResourceAttributes", {}).get("path", "/api/v1/services")
    assert ((await server.handler(Request("GET", path))).status == 200) == allowed


@pytest.mark.parametrize(
    ("kind", "spec", "code", "message"),
    [
        (registry.SELF_SUBJECT_ACCESS_REVIEW, {}, 422, 'SelfSubjectAccessReview.authorization.k8s.io "" is invalid: '
         "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes "
         "must be specified"),
        (registry.SELF_SUBJECT_ACCESS_REVIEW, RESOURCE | PATH, 422, "spec.nonResourceAttributes: Invalid value: "
         '{"path":"/metrics","verb":"get"}: cannot be specified in combination with resourceAttributes'),
        (registry.SUBJECT_ACCESS_REVIEW, RESOURCE, 422, 'spec.user: Invalid value: "": at least one of user or '
         "group must be specified"),
        (registry.SELF_SUBJECT_RULES_REVIEW, {}, 400, "no namespace on request"),
    ],
)  # fmt: skip
async def test_half_a_question_is_refused(server: ApiServer, kind: Kind, spec: JSON, code: int, message: str) -> None:
    found, status = await ask(server, kind, spec)
    assert (found, status["reason"]) == (code, "Invalid" if code == 422 else "BadRequest")
    assert message in status["message"]


async def test_a_question_of_one_namespace_stays_in_it(server: ApiServer) -> None:
    kind = registry.LOCAL_SUBJECT_ACCESS_REVIEW
    code, found = await ask(server, kind, {**RESOURCE, "user": "bob"}, namespace="default")
    assert (code, found["status"]["allowed"]) == (201, False)
    code, found = await ask(server, kind, {**RESOURCE, "user": "bob"}, namespace="other")
    assert (code, found["message"]) == (400, "spec.resourceAttributes.namespace must match namespace: other")


async def test_a_question_is_not_stored_and_cannot_be_listed() -> None:
    store = MemoryStore()
    async with local_server(store) as server:
        before = await store.revision()
        await ask(server, registry.SELF_SUBJECT_ACCESS_REVIEW, RESOURCE)
        assert await store.revision() == before
        for method in ("GET", "DELETE"):
            assert (await ask(server, registry.SELF_SUBJECT_ACCESS_REVIEW, None, method=method))[0] == 405
        assert (await ask(server, registry.SELF_SUBJECT_ACCESS_REVIEW, RESOURCE, user=None))[0] == 401
