"""Bootstrap tokens: who they stand for, and that a refused one tells nobody why."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from kubesvc.api.meta import JSON
from kubesvc.api.registry import SECRET
from kubesvc.apiserver.bootstraptokens import TYPE, authenticate
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, User
from kubesvc.store.memory import MemoryStore
from support.apiserver import ADMIN, local_server

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ID, WORD = "abcdef", "0123456789abcdef"
GOOD = {"token-id": ID, "token-secret": WORD, "usage-bootstrap-authentication": "true"}


async def known(token: str, type_: str = TYPE, **data: str | None) -> User | None:
    """Who `token` stands for, where the Secret of the good one has these data."""
    store = MemoryStore()
    async with local_server(store) as server:
        session = Session(LocalTransport(server.handler, ADMIN))
        held = {name: value for name, value in {**GOOD, **data}.items() if value is not None}
        metadata = {"name": f"bootstrap-token-{ID}", "namespace": "kube-system"}
        tree: JSON = {"metadata": metadata, "type": type_, "stringData": held}
        await session.create(SECRET, tree)
        return await authenticate(store, token, lambda: NOW)


async def test_a_good_one_is_a_bootstrapper() -> None:
    later = "2026-01-02T00:00:01Z"
    extra = {"auth-extra-groups": "system:bootstrappers:east,system:bootstrappers:a", "expiration": later}
    assert await known(f"{ID}.{WORD}") == User("system:bootstrap:abcdef", ("system:bootstrappers",))
    groups = ("system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:east")
    assert await known(f"{ID}.{WORD}", **extra) == User("system:bootstrap:abcdef", groups)


@pytest.mark.parametrize(
    ("token", "data"),
    [
        ("", {}),
        (f"{ID}.{WORD}x", {}),
        (f"{ID}.{WORD.upper()}", {}),
        (f"{ID}.0123456789abcdee", {}),
        (f"abcdeg.{WORD}", {}),
        (f"{ID}.{WORD}", {"type_": "Opaque"}),
        (f"{ID}.{WORD}", {"token-id": "abcdeg"}),
        (f"{ID}.{WORD}", {"token-secret": None}),
        (f"{ID}.{WORD}", {"expiration": "2026-01-01T23:59:59Z"}),
        (f"{ID}.{WORD}", {"expiration": "soon"}),
        (f"{ID}.{WORD}", {"usage-bootstrap-authentication": "false"}),
        (f"{ID}.{WORD}", {"usage-bootstrap-authentication": None}),
        (f"{ID}.{WORD}", {"auth-extra-groups": "system:masters"}),
    ],
    ids=str,
)
async def test_any_other_is_nobody(token: str, data: dict[str, str | None], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert await known(token, **data) is None  # type: ignore[arg-type]
    assert WORD not in caplog.text
