"""A node says that it is alive, and speaks up when it was taken for lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from kubesvc.api.coordination import NODE_LEASES, Lease
from kubesvc.api.errors import NotFound
from kubesvc.api.meta import JSON, Condition
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod, PodStatus
from kubesvc.api.registry import LEASE, NODE, POD
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.node import lease, registration
from kubesvc.node.config import NodeConfig
from kubesvc.node.publisher import Publisher
from support.agents import add_node
from support.apiserver import local_session
from support.watching import following, running

NOWHERE = Path("/nonexistent")
CONFIG = NodeConfig("box", "n1", (IPv4Address("192.0.2.1"),), NOWHERE, NOWHERE, NOWHERE, NOWHERE, lease_renewal=0.01)
FACTS = registration.Facts("amd64", "6.18", "Linux", "m", "b", 2, 1024, "runc://1", "v1")


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as one:
        yield one


async def test_a_lease_belongs_to_its_node_and_is_renewed(session: Session) -> None:
    """None before the Node is there; then owned by it, each renewal later than the one before."""
    await lease.renew(session, CONFIG)
    with pytest.raises(NotFound):
        await session.get(LEASE, NODE_LEASES, "n1")
    await add_node(session, "n1")
    async with following(session, LEASE, Lease) as leases, running(lease.keep(session, CONFIG)):
        await leases.until(lambda: len(leases.seen) >= 3, "three renewals")
    times = [found.spec.renew_time or "" for found in leases.seen]
    assert times == sorted(set(times))
    found = leases.seen[0]
    assert (found.spec.holder_identity, found.metadata.owner_references[0].kind) == ("n1", "Node")


async def test_a_node_taken_for_lost_says_at_once_that_it_is_ready(session: Session, tmp_path: Path) -> None:
    """Its Lease first, so that nobody doubts it again."""
    await add_node(session, "n1")
    nodes: Informer[Node] = Informer(session, NODE, Node)
    quiet = replace(CONFIG, lease_renewal=3600.0, run_dir=tmp_path)
    async with (
        following(session, NODE, Node) as seen,
        running(nodes.run(), registration.heartbeat(session, quiet, FACTS, nodes)),
    ):
        await nodes.synced.wait()
        lost = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
        await session.patch(NODE, "", "n1", {"status": {"conditions": [lost]}}, subresource="status")

        def reasons() -> list[str]:
            conditions = [c for found in seen.seen for c in found.status.conditions]
            return [c.reason for c in conditions if c.type == "Ready"]

        await seen.until(lambda: reasons()[-2:] == ["NodeStatusUnknown", "KubeletReady"], "ready by its own word")
        await session.get(LEASE, NODE_LEASES, "n1")


SAID: JSON = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
OVERRULED = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}


async def new_pod(session: Session) -> Pod:
    spec = {"containers": [{"name": "c", "image": "host"}]}
    made = await session.create(POD, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    return msgspec.convert(made, Pod)


async def overrule(session: Session) -> Pod:
    """As a controller does that takes the node for lost: what the API shows then."""
    return msgspec.convert(await session.patch(POD, "default", "p", OVERRULED, subresource="status"), Pod)


async def ready(session: Session) -> str:
    conditions = (await session.get(POD, "default", "p"))["status"]["conditions"]
    return next(c["status"] for c in conditions if c["type"] == "Ready")


async def test_a_pods_ready_that_was_overruled_is_said_again(session: Session) -> None:
    """The same status is written once more, and only then."""
    before = await new_pod(session)
    publisher = Publisher(session, before, lambda _: (SAID, False))
    async with running(publisher.run()), asyncio.timeout(60):
        publisher.changed()
        await publisher.settled()
        own = await session.get(POD, "default", "p")
        not_yet = PodStatus(conditions=[Condition(type="Ready", status="False")])
        for shown in (replace(before, status=not_yet), msgspec.convert(own, Pod)):  # what it wrote over; what it wrote
            publisher.shown(shown)
            await publisher.settled()
        assert await session.get(POD, "default", "p") == own
        overruled = await overrule(session)
        assert await ready(session) == "False"
        publisher.shown(overruled)
        await publisher.settled()
        assert await ready(session) == "True"


async def test_a_pods_ready_that_was_overruled_while_it_was_written_is_said_again(session: Session) -> None:
    """The watch tells of another's write before the answer to the agent's own, older one has come."""
    publisher = Publisher(session, await new_pod(session), lambda _: (SAID, False))
    patch, writes = session.patch, 0

    async def slow(*args: Any, **options: Any) -> JSON:
        nonlocal writes
        writes += 1
        answer = await patch(*args, **options)
        if writes == 1:
            publisher.shown(await overrule(session))
        return answer

    session.patch = slow  # type: ignore[method-assign]
    async with running(publisher.run()), asyncio.timeout(60):
        publisher.changed()
        await publisher.settled()
        assert await ready(session) == "True"
    assert writes == 3  # its own, the other, its own again
