"""spec.externalIPs: refused unless switched on, because whoever sets them takes the traffic of those addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kubesvc.api.errors import Forbidden
from kubesvc.api.meta import JSON
from kubesvc.api.registry import SERVICE
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport
from kubesvc.store.memory import MemoryStore
from support.apiserver import ADMIN, local_server, local_session

DENIED = 'services "web" is forbidden: Use of external IPs is denied by admission control.'


def service(**spec: Any) -> JSON:
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as session:
        yield session


async def test_a_new_service_may_not_have_them(session: Session) -> None:
    """The error says why, and what to do."""
    with pytest.raises(Forbidden) as refused:
        await session.create(SERVICE, service(externalIPs=["192.0.2.1"]))
    assert str(refused.value).startswith(DENIED)
    assert "kubesvc up --allow-external-ips" in str(refused.value)


async def test_a_service_may_not_get_them_by_any_verb(session: Session) -> None:
    await session.create(SERVICE, service())
    path, stolen = SERVICE.path("default", "web"), b'{"spec":{"externalIPs":["192.0.2.1"]}}'
    for media in ("merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"):
        with pytest.raises(Forbidden, match="external IPs"):
            await session.raw("PATCH", path, query={"fieldManager": "m"}, body=stolen,
                              content_type=f"application/{media}")  # fmt: skip
    found = await session.get(SERVICE, "default", "web")
    found["spec"]["externalIPs"] = ["192.0.2.1"]
    with pytest.raises(Forbidden, match="external IPs"):
        await session.update(SERVICE, found)


async def test_what_was_there_before_may_stay_and_shrink_but_not_grow() -> None:
    """A cluster that switches them off again can go on working with its Services."""
    store = MemoryStore()
    async with local_server(store, allow_external_ips=True) as server:
        allowed = Session(LocalTransport(server.handler, ADMIN))
        await allowed.create(SERVICE, service(externalIPs=["192.0.2.1", "192.0.2.2"]))
    async with local_session(store=store) as session:
        await session.patch(SERVICE, "default", "web", {"metadata": {"labels": {"a": "b"}}})
        await session.patch(SERVICE, "default", "web", {"spec": {"externalIPs": ["192.0.2.2"]}})
        with pytest.raises(Forbidden, match="external IPs"):
            await session.patch(SERVICE, "default", "web", {"spec": {"externalIPs": ["192.0.2.2", "192.0.2.3"]}})
