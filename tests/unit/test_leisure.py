"""Work that nobody waits for: it waits while the event loop is busy, is never left undone, and is overtaken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from kubesvc.client.queue import WorkQueue

DEADLINE = 60.0  # seconds
KEYS = [f"k{number}" for number in range(20)]


def add_all(queue: WorkQueue[str]) -> None:
    for key in KEYS:
        queue.add_at_leisure(key)


async def worked(queue: WorkQueue[str], add: Callable[[], None], count: int, beside: Awaitable[None]) -> list[str]:
    """The first `count` keys in the order they were worked on, while `beside` runs."""
    seen: list[str] = []
    enough = asyncio.Event()

    async def reconcile(key: str) -> None:
        seen.append(key)
        if len(seen) == count:
            enough.set()

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        running = group.create_task(queue.run(reconcile))
        other = asyncio.ensure_future(beside)
        add()
        await enough.wait()
        other.cancel()
        running.cancel()
    return seen


async def busy() -> None:
    """Takes every turn of the loop for itself, five milliseconds each."""
    while True:
        until = time.perf_counter() + 0.005
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)


async def test_on_an_idle_loop_what_is_leisurely_is_worked_on_in_order() -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    assert await worked(queue, lambda: add_all(queue), len(KEYS), asyncio.sleep(0)) == KEYS
    assert len(queue) == 0


async def test_on_a_busy_loop_what_is_leisurely_still_gets_its_share() -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    assert await worked(queue, lambda: add_all(queue), len(KEYS), busy()) == KEYS


async def test_on_a_busy_loop_urgent_keys_overtake() -> None:
    queue: WorkQueue[str] = WorkQueue("test")

    def add() -> None:
        for key in ("later", "soon"):
            queue.add_at_leisure(key)
        queue.add("now")
        queue.add("soon")  # no longer at leisure, and still only once

    assert await worked(queue, add, 3, busy()) == ["now", "soon", "later"]


async def test_a_key_is_leisurely_or_waiting_but_never_both() -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    queue.add("a")
    queue.add_at_leisure("a")
    queue.add_at_leisure("b")
    queue.add_at_leisure("b")
    assert len(queue) == 2
