"""The audit log: who did what, how much of it is written down, and that it is nobody else's to read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.errors import Forbidden, Unauthorized
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CLUSTER_ROLE_BINDING, CONFIG_MAP, NAMESPACE, POD, SECRET
from kubesvc.apiserver.access.attributes import Attributes
from kubesvc.apiserver.audit.auditor import AuditError, open_audit
from kubesvc.apiserver.audit.file import AuditFile
from kubesvc.apiserver.audit.policy import PolicyError, parse
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request, User
from support.apiserver import ADMIN, local_server

PASSWORD = "c2VzYW1lLW9wZW4="


class Audited:
    def __init__(self, handler: Any, path: Path) -> None:
        self.handler, self.path = handler, path

    def session(self, user: User = ADMIN) -> Session:
        return Session(LocalTransport(self.handler, user))

    def events(self, **wanted: Any) -> list[JSON]:
        """Those of clients, not of the server's own start."""
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        found = [e for e in found if e["user"].get("username") != "system:apiserver"]
        return [e for e in found if all(e.get(name) == value for name, value in wanted.items())]


@asynccontextmanager
async def audited(tmp_path: Path, policy: JSON | None = None) -> AsyncIterator[Audited]:
    path, rules = tmp_path / "audit" / "audit.log", None
    if policy is not None:
        rules = tmp_path / "policy.yaml"
        rules.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **policy}))
    async with local_server(audit_log=path, audit_policy=rules) as server:
        yield Audited(server.handler, path)


def secret(name: str = "s") -> JSON:
    return {"metadata": {"name": name, "namespace": "default"}, "data": {"password": PASSWORD}}


async def test_a_write_is_one_event_of_its_metadata(tmp_path: Path) -> None:
    async with audited(tmp_path) as log:
        request = Request(
            "POST", SECRET.path("default"), {"dryRun": "All"}, {"user-agent": "me/1", "authorization": "Bearer xyzzy"},
            json.dumps({**secret(), "apiVersion": "v1", "kind": "Secret"}).encode(), ADMIN, "dryRun=All",
            source="192.0.2.7",
        )  # fmt: skip
        answer = await log.handler(request)
        (event,) = log.events(verb="create", sourceIPs=["192.0.2.7"])
        assert event["apiVersion"] == "audit.k8s.io/v1"
        assert (event["kind"], event["level"], event["stage"]) == ("Event", "Metadata", "ResponseComplete")
        assert answer.headers["Audit-ID"] == event["auditID"]
        assert event["requestURI"] == "/api/v1/namespaces/default/secrets?dryRun=All"
        assert event["user"] == {"username": "admin", "groups": ["system:masters", "system:authenticated"]}
        assert event["userAgent"] == "me/1"
        assert event["objectRef"] == {"resource": "secrets", "namespace": "default", "apiVersion": "v1"}
        assert event["responseStatus"] == {"metadata": {}, "code": 201}
        assert event["annotations"] == {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}
        assert event["requestReceivedTimestamp"] <= event["stageTimestamp"]
        text = log.path.read_text()
        assert PASSWORD not in text
        assert "xyzzy" not in text
        assert oct(log.path.stat().st_mode & 0o777) == "0o600"


async def test_refusals_say_who_was_refused_and_why(tmp_path: Path) -> None:
    async with audited(tmp_path) as log:
        with pytest.raises(Forbidden):
            await log.session(User("alice", ("devs",))).get(POD, "default", "p")
        (event,) = log.events(user={"username": "alice", "groups": ["devs", "system:authenticated"]})
        assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"
        assert event["responseStatus"]["code"] == 403
        assert 'User "alice" cannot get resource "pods"' in event["responseStatus"]["message"]
        stranger = await log.handler(Request("GET", "/api/v1/pods"))
        assert stranger.status == Unauthorized.code
        (event,) = log.events(auditID=stranger.headers["Audit-ID"])
        assert (event["user"], event["responseStatus"]["code"]) == ({}, 401)
        assert "annotations" not in event


async def test_what_a_binding_gives_is_said_with_the_binding(tmp_path: Path) -> None:
    async with audited(tmp_path) as log:
        subjects = [{"kind": "Group", "name": "devs"}]
        tree = {"metadata": {"name": "readers"}, "roleRef": {"kind": "ClusterRole", "name": "view"}}
        await log.session().create(CLUSTER_ROLE_BINDING, {**tree, "subjects": subjects})
        await log.session(User("alice", ("devs",))).get(NAMESPACE, "", "default")
        (event,) = log.events(verb="get")
        reason = 'RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "view" to Group "devs"'
        assert event["annotations"]["authorization.k8s.io/reason"] == reason


async def test_whom_somebody_acts_for_is_said(tmp_path: Path) -> None:
    async with audited(tmp_path) as log:
        headers = {"impersonate-user": "alice", "audit-id": "mine"}
        answer = await log.handler(Request("GET", "/api/v1/pods", {}, headers, b"", ADMIN))
        assert (answer.status, answer.headers["Audit-ID"]) == (403, "mine")
        (event,) = log.events(auditID="mine")
        assert event["user"]["username"] == "admin"
        assert event["impersonatedUser"] == {"username": "alice", "groups": ["system:authenticated"]}


async def test_a_policy_says_how_much_is_written(tmp_path: Path) -> None:
    rules = [
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "Metadata", "resources": [{"resources": ["secrets"]}]},
        {"level": "RequestResponse", "verbs": ["create"], "omitManagedFields": True,
         "resources": [{"resources": ["configmaps"]}]},
        {"level": "Request", "verbs": ["patch"]},
    ]  # fmt: skip
    async with audited(tmp_path, {"rules": rules, "omitStages": ["RequestReceived"]}) as log:
        session = log.session()
        await session.create(SECRET, secret())
        await session.create(CONFIG_MAP, {"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "b"}})
        await session.patch(CONFIG_MAP, "default", "c", {"data": {"a": "c"}})
        await session.get(CONFIG_MAP, "default", "c")
        create_secret, create, patch = log.events()
        assert "requestObject" not in create_secret
        assert "responseObject" not in create_secret
        assert create["requestObject"]["data"] == create["responseObject"]["data"] == {"a": "b"}
        assert create["responseObject"]["metadata"]["uid"]
        assert "managedFields" not in create["responseObject"]["metadata"]
        assert patch["requestObject"] == {"data": {"a": "c"}}
        assert "responseObject" not in patch


async def test_a_watch_is_said_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    async with audited(tmp_path, {"rules": [{"level": "Metadata", "verbs": ["watch"]}]}) as log:
        watch = log.session().watch(CONFIG_MAP, since="0", namespace="default", timeout_seconds=1)
        async for _ in watch:
            pass
        assert [e["stage"] for e in log.events()] == ["RequestReceived", "ResponseStarted", "ResponseComplete"]


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({}, True),
        ({"users": ["bob"]}, False),
        ({"userGroups": ["devs"]}, True),
        ({"verbs": ["get"], "namespaces": ["default"]}, True),
        ({"namespaces": ["other"]}, False),
        ({"resources": [{"group": ""}]}, True),
        ({"resources": [{"group": "apps"}]}, False),
        ({"resources": [{"resources": ["pods"]}]}, False),
        ({"resources": [{"resources": ["pods/log"]}]}, True),
        ({"resources": [{"resources": ["pods/*"]}]}, True),
        ({"resources": [{"resources": ["*/log"], "resourceNames": ["p"]}]}, True),
        ({"resources": [{"resources": ["*"], "resourceNames": ["q"]}]}, False),
        ({"nonResourceURLs": ["*"]}, False),
    ],
    ids=str,
)
def test_rules_match_as_upstreams(rule: JSON, matches: bool) -> None:
    found = parse({"rules": [{"level": "Metadata", **rule}]})
    wanted = Attributes("get", "", "pods/log", "default", "p")
    assert (found.rule("alice", ["devs"], wanted) is not None) is matches
    path = found.rule("alice", ["devs"], Attributes("get", path="/metrics"))
    assert (path is not None) is (rule.keys() <= {"nonResourceURLs", "userGroups"})


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"rules": []}, "rules: expected at least one"),
        ({"rules": [{"level": "All"}]}, "rules[0].level 'All': expected one of None, Metadata"),
        ({"rules": [{"level": "None", "omitStages": ["x"]}]}, "rules[0].omitStages 'x'"),
        ({"rules": [{"level": "None", "verb": ["get"]}]}, "verb"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["x"]}]}, "expected /PATH"),
        ({"kind": "Pod", "rules": [{"level": "None"}]}, "expected audit.k8s.io/v1 Policy"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_policy_is_named(policy: JSON, why: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as error:
        parse(policy)
    assert why in str(error.value)
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(policy))
    with pytest.raises(AuditError, match=f"audit policy {file}"):
        open_audit(tmp_path / "audit.log", file)


def test_a_full_file_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = AuditFile(path, limit=100, kept=2)
    for number in range(10):
        file.write(f"{number:<39}\n".encode())
    file.close()
    files = sorted(tmp_path.iterdir())
    assert [found.name for found in files] == ["audit.log", "audit.log.1", "audit.log.2"]
    assert [found.read_text().split() for found in files] == [["8", "9"], ["6", "7"], ["4", "5"]]
    assert {oct(found.stat().st_mode & 0o777) for found in files} == {"0o600"}


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="can't be written"):
        open_audit(tmp_path / "file" / "audit.log", None)
