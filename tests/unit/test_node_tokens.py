"""A pod's tokens as its node keeps them: asked for once, and anew when 80 % of their life is over."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from kubesvc.api.errors import Forbidden
from kubesvc.api.meta import format_time
from kubesvc.api.pods import Pod
from kubesvc.client.session import Session
from kubesvc.node import tokens
from kubesvc.node.environment import ConfigError
from kubesvc.node.tokens import Tokens
from support.objects import make

SOURCE = {"path": "token", "expirationSeconds": 1000, "audience": "vault"}
NOW = 1_800_000_000
POD = make(
    Pod,
    "p",
    {"uid": "7"},
    spec={"serviceAccountName": "robot",
          "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": SOURCE}]}}]},
)  # fmt: skip


class Server:
    """Answers each TokenRequest with a number that grows, good for 1,000 s from NOW; or refuses."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.refuses = False

    async def raw(self, method: str, path: str, *, body: bytes) -> Any:
        self.asked.append((method, path, json.loads(body)["spec"]))
        if self.refuses:
            raise Forbidden("no")
        expires = format_time(datetime.fromtimestamp(NOW + 1000, UTC))
        status = {"status": {"token": str(len(self.asked)), "expirationTimestamp": expires}}
        return type("Answer", (), {"body": json.dumps(status).encode()})()


async def test_a_token_is_asked_for_once_and_anew_when_most_of_its_life_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    kept = Tokens(cast("Session", server))
    monkeypatch.setattr(tokens.time, "time", lambda: NOW)
    assert kept.due(POD) == 0
    for _ in range(3):
        assert list((await kept.current(POD)).values()) == ["1"]
    (method, path, spec), = server.asked  # fmt: skip
    assert (method, path) == ("POST", "/api/v1/namespaces/default/serviceaccounts/robot/token")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "7"}
    assert spec == {"audiences": ["vault"], "expirationSeconds": 1000, "boundObjectRef": bound}
    assert kept.due(POD) == NOW + 800
    monkeypatch.setattr(tokens.time, "time", lambda: NOW + 800)
    assert list((await kept.current(POD)).values()) == ["2"]


async def test_without_a_new_token_the_old_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is tried for again soon; a pod that never had one doesn't start."""
    server = Server()
    kept = Tokens(cast("Session", server))
    monkeypatch.setattr(tokens.time, "time", lambda: NOW)
    server.refuses = True
    with pytest.raises(ConfigError, match="failed to fetch token: no"):
        await kept.current(POD)
    server.refuses = False
    await kept.current(POD)
    server.refuses = True
    monkeypatch.setattr(tokens.time, "time", lambda: NOW + 900)
    assert list((await kept.current(POD)).values()) == ["2"]
    assert kept.due(POD) == NOW + 910


def test_a_pod_without_tokens_waits_for_none() -> None:
    assert Tokens(cast("Session", Server())).due(make(Pod, "p", spec={})) is None
