"""Writes wait for their echo, and a failing key harms nobody else."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kubesvc.api.errors import Conflict, Forbidden, not_found
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CONFIG_MAP, EVENT, NAMESPACE
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.caches import Caches
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.context import make_context
from kubesvc.controllers.writer import Writer, namespace_is_ending, together
from support.apiserver import local_session
from support.watching import running


async def test_a_write_returns_once_the_cache_shows_it() -> None:
    """Created, patched, deleted: the cache agrees each time the write returns."""
    async with local_session() as session:
        caches = Caches(session)
        writer = Writer(session, caches)
        async with running(caches.config_maps.run()):
            await caches.config_maps.synced.wait()
            tree: JSON = {"metadata": {"name": "x", "namespace": "default"}}
            await writer.create(CONFIG_MAP, tree)
            item = caches.config_maps.items["default", "x"]
            await writer.patch(CONFIG_MAP, item, {"metadata": {"labels": {"a": "b"}}})
            assert caches.config_maps.items["default", "x"].metadata.labels == {"a": "b"}
            await writer.delete(CONFIG_MAP, item)
            assert caches.config_maps.items == {}
            await writer.delete(CONFIG_MAP, item)
            with pytest.raises(Conflict):
                await writer.patch(CONFIG_MAP, item, {"data": {}})


async def test_together_finishes_everything_before_it_fails() -> None:
    done: list[str] = []

    async def write(name: str, fails: bool = False) -> str:
        if fails:
            raise Conflict(name)
        await asyncio.sleep(0)
        done.append(name)
        return name

    assert await together([write("a"), write("b")]) == ["a", "b"]
    with pytest.raises(Conflict, match="c"):
        await together([write("c", True), write("d")])
    assert done == ["a", "b", "d"]


async def test_an_ending_namespace_is_told_from_other_refusals() -> None:
    async with local_session() as session:
        await session.create(NAMESPACE, {"metadata": {"name": "going"}})
        await session.delete(NAMESPACE, "", "going")
        for namespace in ("going", "absent"):
            with pytest.raises((Forbidden, type(not_found("x", "y")))) as refused:
                await session.create(CONFIG_MAP, {"metadata": {"name": "x", "namespace": namespace}})
            assert namespace_is_ending(refused.value)
        assert not namespace_is_ending(not_found("pods", "x"))
        assert not namespace_is_ending(Forbidden("no"))


async def test_a_failing_key_is_tried_again_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    queue: WorkQueue[str] = WorkQueue("test", first_delay=0.001)
    seen: list[str] = []
    finished = asyncio.Event()

    async def reconcile(key: str) -> None:
        seen.append(key)
        if key == "bad" and seen.count("bad") < 3:
            raise RuntimeError("boom")
        if seen.count("bad") == 3:
            finished.set()

    queue.add("bad")
    queue.add("good")
    with caplog.at_level(logging.CRITICAL, "kubesvc.client.queue"):
        async with running(queue.run(reconcile)):
            async with asyncio.timeout(60):
                await finished.wait()
    assert seen == ["bad", "good", "bad", "bad"]


async def test_the_sooner_of_two_delays_counts() -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    worked = asyncio.Event()

    async def reconcile(key: str) -> None:
        worked.set()

    queue.add_after("key", 600)
    queue.add_after("key", 0.001)
    queue.add_after("key", 600)
    async with running(queue.run(reconcile)):
        async with asyncio.timeout(60):
            await worked.wait()


async def test_nothing_is_written_before_every_cache_is_whole() -> None:
    """A context alone, its informers not running, has reconciled nothing."""
    async with local_session() as session:
        context = make_context(session, ControllersConfig())
        assert not any(informer.synced.is_set() for informer in context.caches)
        assert {i.kind.plural for i in context.caches} >= {"pods", "services", "endpointslices", "deployments"}
        assert context.caches.for_kind(EVENT) is None
