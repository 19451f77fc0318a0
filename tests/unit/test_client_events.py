"""Events: counted, signed as upstream signs them, and never in their caller's way."""

from __future__ import annotations

from typing import Any

import msgspec

from kubesvc.api.core import Namespace
from kubesvc.api.meta import Object, ObjectMeta
from kubesvc.api.pods import Container, Pod, PodSpec
from kubesvc.api.registry import EVENT, NAMESPACE, POD
from kubesvc.client.events import NORMAL, WAITING, WARNING, Recorder
from kubesvc.client.session import Session
from support.apiserver import local_session
from support.watching import Event, following, running, watching


async def events(session: Session) -> list[Any]:
    items: list[Any] = msgspec.json.decode((await session.raw("GET", EVENT.path("default"))).body)["items"]
    return items


async def test_the_same_event_again_raises_its_count() -> None:
    """Twice the same is one Event with count 2; another message is another; a deleted one starts over."""
    async with local_session() as session, watching(session, EVENT) as see:
        recorder = Recorder(session)
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


async def test_an_event_names_its_source_the_reporter_and_the_part_it_is_about() -> None:
    """A typed object will do; a component of no node has no host."""
    pod = Pod(
        metadata=ObjectMeta(name="web", namespace="default", uid="u1"), spec=PodSpec(containers=[Container(name="c")])
    )
    async with local_session() as session, watching(session, EVENT) as see:
        kubelet, controller = Recorder(session, host="node1"), Recorder(session)
        async with running(kubelet.run(), controller.run()):
            kubelet.record("kubelet", POD, pod, WARNING, "BackOff", "later", field_path="spec.containers{c}")
            controller.record("scheduler", POD, pod, NORMAL, "Scheduled", "there")
            await see.until(lambda: len(see.all(EVENT)) == 2, "two Events")
        told = {e["reason"]: e for e in await events(session)}
        assert told["BackOff"]["source"] == {"component": "kubelet", "host": "node1"}
        assert (told["BackOff"]["reportingComponent"], told["BackOff"]["reportingInstance"]) == ("kubelet", "node1")
        assert told["BackOff"]["type"] == "Warning"
        assert told["BackOff"]["involvedObject"] == {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": "default",
            "name": "web",
            "uid": "u1",
            "fieldPath": "spec.containers{c}",
        }
        assert told["Scheduled"]["source"] == {"component": "scheduler"}
        assert told["Scheduled"]["reportingInstance"] == ""


async def test_a_full_queue_drops_events_and_what_is_refused_is_forgotten() -> None:
    """The caller never waits nor sees an error; later Events are written all the same."""
    gone = Pod(metadata=ObjectMeta(name="web", namespace="absent", uid="u1"))
    here = Namespace(metadata=ObjectMeta(name="default", uid="u2"))
    async with local_session() as session, following(session, EVENT, Event) as written:
        recorder = Recorder(session)
        recorder.record("tester", POD, gone, NORMAL, "Said", "nowhere to be written")
        for _ in range(WAITING + 5):
            recorder.record("tester", NAMESPACE, here, NORMAL, "Said", "again")
        async with running(recorder.run()):
            await written.until(lambda: WAITING - 1 in [e.count for e in written.seen], "all that fitted")
            recorder.record("tester", NAMESPACE, here, NORMAL, "Said", "the last")
            await written.until(lambda: written.seen[-1].message == "the last", "the last")
        assert max(e.count for e in written.seen) == WAITING - 1
