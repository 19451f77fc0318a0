"""Who waits for what before a pod is told to end: a node's report, and an agent's patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import NODE_LEASES, PROGRAMMED
from kubesvc.api.meta import Object
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.registry import ENDPOINT_SLICE, LEASE, NODE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.node.withdrawal import Withdrawal, behind, withdrawn_at
from kubesvc.proxy.reporting import _PACE, Reporter
from support.apiserver import local_session
from support.proxy import endpoint, slice_of
from support.watching import following

POD = msgspec.convert({"metadata": {"name": "web-1", "namespace": "default", "uid": "u1"}}, Pod)


def tree(uid: str, *, terminating: bool, name: str = "web-1") -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": ["10.244.0.1"],
                "conditions": {"ready": not terminating, "serving": True, "terminating": terminating},
                "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "default", "uid": uid},
            }
        ],
    }


def found(revision: str, uid: str, *, terminating: bool) -> EndpointSlice:
    whole = tree(uid, terminating=terminating)
    whole["metadata"]["resourceVersion"] = revision  # type: ignore[index]
    return msgspec.convert(whole, EndpointSlice)


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        pytest.param([], 0, id="in no slice"),
        pytest.param([found("7", "other", terminating=False)], 0, id="somebody else's slice"),
        pytest.param([found("7", "u1", terminating=False)], None, id="still offered"),
        pytest.param([found("7", "u1", terminating=True)], 7, id="withdrawn"),
        pytest.param([found("7", "u1", terminating=True), found("9", "u1", terminating=True)], 9, id="from two slices"),
        pytest.param(
            [found("7", "u1", terminating=True), found("9", "u1", terminating=False)], None, id="from one yet"
        ),
    ],
)
def test_a_pod_is_withdrawn_when_every_slice_says_that_it_terminates(
    slices: list[EndpointSlice], expected: int | None
) -> None:
    """The newest of their revisions is what nodes must have in force."""
    assert withdrawn_at("u1", slices) == expected


def node(name: str, status: str = "True") -> Node:
    return msgspec.convert(
        {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status}]}}, Node
    )


def lease(name: str, revision: int | None) -> Object:
    annotations = {} if revision is None else {PROGRAMMED: str(revision)}
    return msgspec.convert({"metadata": {"name": name, "annotations": annotations}}, Object)


def test_only_ready_nodes_are_waited_for() -> None:
    """One is ahead, one behind, one has never said anything, one has no Lease, one is not Ready."""
    nodes = [node("ahead"), node("behind"), node("silent"), node("none"), node("gone", "Unknown")]
    leases = [lease("ahead", 8), lease("behind", 6), lease("silent", None)]
    assert behind(7, nodes, leases) == ["behind", "silent", "none"]


@asynccontextmanager
async def waiting(
    session: Session, longest: float = 3600.0, forced: asyncio.Event | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """An agent with one Ready node that waits for POD."""
    await session.create(
        NODE, {"metadata": {"name": "node1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    )
    nodes = Informer(session, NODE, Node)
    following_nodes = asyncio.create_task(nodes.run())
    await nodes.synced.wait()
    withdrawal = Withdrawal(session, nodes, longest)
    task = asyncio.create_task(withdrawal.wait(POD, forced or asyncio.Event()))
    try:
        yield task
        await asyncio.wait_for(task, 60)
        assert not withdrawal._tasks
    finally:
        for each in (task, following_nodes):
            each.cancel()
        await asyncio.gather(task, following_nodes, return_exceptions=True)


async def test_the_agent_waits_for_the_slice_and_then_for_the_nodes() -> None:
    """Offered: it waits. Terminating, and the node an older revision: it waits. The node says so: it goes on."""
    async with local_session() as session:
        await session.create(ENDPOINT_SLICE, tree("u1", terminating=False))
        async with waiting(session) as task:
            withdrawn = await session.patch(ENDPOINT_SLICE, "default", "web-1", tree("u1", terminating=True))
            revision = int(withdrawn["metadata"]["resourceVersion"])
            meta = {"name": "node1", "namespace": NODE_LEASES, "annotations": {PROGRAMMED: str(revision - 1)}}
            await session.create(LEASE, {"metadata": meta})
            async with following(session, LEASE, Object) as leases:
                await leases.until(lambda: leases.get("node1", NODE_LEASES) is not None, "the Lease is seen")
                assert not task.done()
            patch = {"metadata": {"annotations": {PROGRAMMED: str(revision)}}}
            await session.patch(LEASE, NODE_LEASES, "node1", patch)


async def test_a_pod_in_no_slice_is_not_kept_waiting() -> None:
    """No Service has it: nobody has to hear of its end."""
    async with local_session() as session, waiting(session) as task:
        await asyncio.wait_for(asyncio.shield(task), 60)


async def test_the_wait_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A node says nothing: the pod is told to end all the same, and the log says so."""
    async with local_session() as session:
        await session.create(ENDPOINT_SLICE, tree("u1", terminating=True))
        async with waiting(session, longest=0.1):
            pass
    assert "told to end although not every node said" in caplog.text


async def test_a_forced_deletion_ends_the_wait(caplog: pytest.LogCaptureFixture) -> None:
    """`kubectl delete --force --grace-period=0` while nodes are waited for: at once, and no complaint of a node."""
    forced = asyncio.Event()
    async with local_session() as session:
        await session.create(ENDPOINT_SLICE, tree("u1", terminating=False))
        async with waiting(session, forced=forced) as task:
            for _ in range(20):
                await asyncio.sleep(0)
            assert not task.done()
            forced.set()
            await asyncio.wait_for(asyncio.shield(task), 60)
    assert "told to end" not in caplog.text


async def test_it_can_be_switched_off() -> None:
    """0 seconds: the slice isn't even looked at."""
    async with local_session() as session:
        await session.create(ENDPOINT_SLICE, tree("u1", terminating=False))
        async with waiting(session, longest=0) as task:
            await asyncio.wait_for(asyncio.shield(task), 60)


async def test_a_node_reports_while_endpoints_terminate_and_is_silent_otherwise() -> None:
    """The Lease is made, then patched; without a terminating endpoint nothing is written."""
    plain, draining = slice_of("10.244.0.1"), slice_of(endpoint("10.244.0.1", state="draining"))
    async with local_session() as session, following(session, LEASE, Object) as leases:
        reporter, loop = Reporter(session, "node1"), asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.create_task(reporter.run())

        def reported() -> str | None:
            now = leases.get("node1", NODE_LEASES)
            return None if now is None else now.metadata.annotations[PROGRAMMED]

        reporter.slice_changed(None, plain)
        reporter.programmed(5)
        reporter.slice_changed(plain, draining)
        reporter.programmed(7)
        await leases.until(lambda: reported() == "7", "made")
        for revision in range(8, 50):
            reporter.programmed(revision)
            await asyncio.sleep(0)
        await leases.until(lambda: reported() == "49", "patched")
        reporter.slice_changed(draining, plain)
        reporter.programmed(60)
        reporter.slice_changed(plain, None)
        reporter.programmed(61)
        other = {"metadata": {"name": "other", "namespace": NODE_LEASES}}
        await session.create(LEASE, other)
        await leases.until(lambda: leases.get("other", NODE_LEASES) is not None, "other")
        assert reported() == "49"
        assert len([seen for seen in leases.seen if seen.name == "node1"]) <= 1 + (loop.time() - began) / _PACE
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
