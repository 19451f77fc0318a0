"""A proxy with 10,000 Services under 500 slice changes a second for 60 seconds: CPU share, coalescing, backlog.

    PYTHONPATH=src:bench python bench/proxy_churn.py

The changes come through a watch as JSON lines, from this same process; the CPU share includes making them.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec

from figures import show, show_percentiles
from kubesvc.client.session import Session
from kubesvc.client.transport import Request, Response
from kubesvc.kernel import netns
from kubesvc.proxy.backend import Changes
from kubesvc.proxy.main import run
from kubesvc.proxy.nftables import NftablesBackend
from proxy import CONFIG, Lists, Programmed, scratch, slice_tree

SERVICES, RATE, SECONDS = 10_000, 500, 60


class Churn(Lists):
    """Lists, and a watch of slices that tells RATE changes a second once `begin` is set."""

    def __init__(self) -> None:
        super().__init__(SERVICES)
        self.begin, self.done = asyncio.Event(), asyncio.Event()
        self.told: dict[str, float] = {}  # revision -> when its line was handed out

    async def send(self, request: Request) -> Response:
        if "watch" in request.query and request.path.endswith("endpointslices"):
            return Response(200, stream=self._changes())
        return await super().send(request)

    async def _changes(self) -> AsyncIterator[bytes]:
        await self.begin.wait()
        started = time.perf_counter()
        for count in range(RATE * SECONDS):
            due = started + count / RATE
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tree = slice_tree(count * 7919 % SERVICES, shift=1 + count // SERVICES)
            revision = str(SERVICES + count + 10)
            tree["metadata"]["resourceVersion"] = revision  # type: ignore[index]
            self.told[revision] = due
            yield msgspec.json.encode({"type": "MODIFIED", "object": tree})
        self.done.set()
        await asyncio.Event().wait()


async def churn() -> None:
    transport, heard = Churn(), Programmed()
    late: list[float] = []
    batches = 0
    apply = NftablesBackend.apply

    def timed(self: NftablesBackend, changes: Changes, revision: str) -> None:
        nonlocal batches
        apply(self, changes, revision)
        batches += 1
        if revision in transport.told:
            late.append((time.perf_counter() - transport.told[revision]) * 1000)

    NftablesBackend.apply = timed  # type: ignore[method-assign]
    logging.getLogger("kubesvc.proxy.main").setLevel(logging.INFO)
    logging.getLogger("kubesvc.proxy.main").addHandler(heard)
    running = asyncio.create_task(run(Session(transport), CONFIG))
    await heard.happened.wait()
    before, started = time.process_time(), time.perf_counter()
    transport.begin.set()
    await transport.done.wait()
    await asyncio.sleep(0)
    took = time.perf_counter() - started
    show("churn-changes", len(transport.told) / took, "changes/s")
    show("churn-cpu-share", (time.process_time() - before) / took * 100, "%")
    show("churn-batches", batches / took, "batches/s")
    show_percentiles("churn-change-due-to-in-force", late, "ms")
    show("churn-longest-behind", max(late), "ms")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def main() -> None:
    with scratch() as path:
        netns.enter(path)
        asyncio.run(churn())


if __name__ == "__main__":
    sys.exit(main())
