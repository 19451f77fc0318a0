"""Writes wait for their echo, Events are counted, and a failing key harms nobody else."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kubesvc.api.errors import Conflict, Forbidden, not_found
from kubesvc.api.meta import JSON, Object
from kubesvc.api.registry import CONFIG_MAP, EVENT, NAMESPACE
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import Session
from kubesvc.controllers.caches import Caches
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.context import make_context
from kubesvc.controllers.events import Recorder
from kubesvc.controllers.writer import Writer, namespace_is_ending, together
from support.agents import running, watching
from support.apiserver import local_session


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


async def events(session: Session) -> list[Any]:
    items: list[Any] = msgspec.json.decode((await session.raw("GET", EVENT.path("default"))).body)["items"]
    return items


async def test_the_same_event_again_raises_its_count() -> None:
    """Twice the same is one Event with count 2; another message is another; a deleted one starts over."""
    async with local_session() as session, watching(session, EVENT) as see:
        recorder = Recorder(session, lambda: datetime.now(UTC))
        found = msgspec.convert(await session.get(NAMESPACE, "", "default"), Object)

        async def say(message: str) -> None:
            before = see.of["Event"].revision
            recorder.record("tester", NAMESPACE, found, "Normal", "Said", message)
            await see.until(lambda: see.of["Event"].revision > before, message)

        async with running(recorder.run()):
            await say("hello")
            await say("hello")
            await say("bye")
            assert {e["message"]: e["count"] for e in await events(session)} == {"hello": 2, "bye": 1}
            (hello,) = (e for e in await events(session) if e["message"] == "hello")
            assert hello["involvedObject"]["name"] == "default"
            assert hello["source"] == {"component": "tester"}
            await session.delete(EVENT, "default", hello["metadata"]["name"])
            await see.until(lambda: see.get(EVENT, hello["metadata"]["name"]) is None, "the Event gone")
            await say("hello")
            assert {e["message"]: e["count"] for e in await events(session)} == {"hello": 1, "bye": 1}


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
            async with asyncio.timeout(5):
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
        async with asyncio.timeout(5):
            await worked.wait()


async def test_nothing_is_written_before_every_cache_is_whole() -> None:
    """A context alone, its informers not running, has reconciled nothing."""
    async with local_session() as session:
        context = make_context(session, ControllersConfig())
        assert not any(informer.synced.is_set() for informer in context.caches)
        assert {i.kind.plural for i in context.caches} >= {"pods", "services", "endpointslices", "deployments"}
        assert context.caches.for_kind(EVENT) is None
