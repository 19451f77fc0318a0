"""What pods that start together read of the API: shared where it is new enough, never waited for in vain."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from kubesvc.api.core import Service
from kubesvc.api.pods import Pod
from kubesvc.client.session import Session
from kubesvc.node.sources import Reader
from support.objects import make


class Lists:
    """A session that answers each list with one Service and a revision of its own; `before` runs right before."""

    def __init__(self, *revisions: int) -> None:
        self.revisions = list(revisions)
        self.asked = 0
        self.before: Any = None

    async def list(self, *_: object, **__: object) -> Any:
        await asyncio.sleep(0)
        self.asked += 1
        if self.before is not None:
            (before, self.before) = (self.before, None)
            before()
        revision = self.revisions.pop(0)
        found = type("Found", (), {})()
        found.metadata = type("Meta", (), {"resource_version": str(revision)})()
        found.items = [make(Service, f"s{revision}")]
        return found


def pod(name: str, revision: int) -> Pod:
    return make(Pod, name, {"resourceVersion": str(revision)}, spec={"nodeName": "n"})


async def test_pods_that_start_together_share_an_answer() -> None:
    lists = Lists(7)
    reader = Reader(cast("Session", lists))
    found = await asyncio.gather(*(reader.services(pod(name, 5)) for name in "abc"))
    assert [[s.name for s in services] for services in found] == [["s7"]] * 3
    assert lists.asked == 1


async def test_a_pod_newer_than_an_answer_that_just_came_asks_again() -> None:
    """Also in the moment when the answer is there and nobody has been told yet: once that never ended."""
    lists = Lists(7, 9)
    reader = Reader(cast("Session", lists))
    late: list[asyncio.Task[list[Service]]] = []
    lists.before = lambda: late.append(asyncio.get_running_loop().create_task(reader.services(pod("late", 8))))
    assert [s.name for s in await reader.services(pod("early", 5))] == ["s7"]
    assert [s.name for s in await late[0]] == ["s9"]
