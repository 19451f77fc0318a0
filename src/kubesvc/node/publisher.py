"""Writing a pod's status: what is newest, one patch at a time, and at once when a container starts or ends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

import msgspec

from kubesvc.api import registry
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import JSON, Condition
from kubesvc.api.pods import Pod
from kubesvc.client.session import STRATEGIC_PATCH, Session, Unreachable

log = logging.getLogger(__name__)

PATIENCE = 0.3  # seconds that "is being created" waits for something better to say


class Publisher:
    """The status of one pod. `compute` takes the conditions that stand and gives the newest status, and whether it can
    wait a little."""

    def __init__(self, session: Session, pod: Pod, compute: Callable[[Sequence[Condition]], tuple[JSON, bool]]) -> None:
        self._session = session
        self._compute = compute
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._pod = pod  # as the API showed it last
        self._sent: JSON | None = None  # what stands by our own word, since revision `_written`
        self._written = 0
        self._sending = False
        self._standing: Sequence[Condition] = pod.status.conditions

    def changed(self) -> None:
        self._settled.clear()
        self._changed.set()

    def shown(self, pod: Pod) -> None:
        """The pod as the API has it now. Another Ready than was sent last, as by a controller that took this node for
        lost, is overwritten; while a write is under way, what is shown is judged once its revision is known."""
        self._pod = pod
        if not self._sending:
            self._insist()

    def _insist(self) -> None:
        if self._sent is None or int(self._pod.metadata.resource_version) <= self._written:
            return
        sent = {c["type"]: c["status"] for c in self._sent.get("conditions", ())}
        if any(c.type == "Ready" and c.status != sent.get("Ready", c.status) for c in self._pod.status.conditions):
            self._sent, self._standing = None, self._pod.status.conditions
            self.changed()

    async def settled(self) -> None:
        """Wait until what is true now has been written (or the pod is gone)."""
        await self._settled.wait()

    async def run(self) -> None:
        """Until cancelled, or the pod is gone from the API."""
        delay = 0.05
        while True:
            await self._changed.wait()
            self._changed.clear()
            status, can_wait = self._compute(self._standing)
            if can_wait:
                try:
                    async with asyncio.timeout(PATIENCE):
                        await self._changed.wait()
                    continue
                except TimeoutError:
                    status, _ = self._compute(self._standing)
            if status != self._sent:
                try:
                    await self._send(status)
                except NotFound:
                    self._settled.set()
                    return
                except (ApiError, Unreachable) as error:
                    log.warning("status of pod %s/%s: %s; again in %.2f s", *self._pod.key, error, delay)
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(delay * 2, 5.0)
                    self._changed.set()
                    continue
                delay = 0.05
                self._insist()
            if not self._changed.is_set():
                self._settled.set()

    async def _send(self, status: JSON) -> None:
        patch = {"metadata": {"uid": self._pod.metadata.uid}, "status": status}
        self._sending = True
        try:
            answer = await self._session.patch(
                registry.POD, *self._pod.key, patch, subresource="status", patch_type=STRATEGIC_PATCH
            )
        finally:
            self._sending = False
        written = msgspec.convert(answer, Pod)
        self._sent, self._written = status, int(written.metadata.resource_version)
        self._standing = written.status.conditions
