"""Writing a pod's status: what is newest, one patch at a time, and at once when a container starts or ends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from kubesvc.api import registry
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import JSON, Condition
from kubesvc.client.session import STRATEGIC_PATCH, Session, Unreachable

log = logging.getLogger(__name__)

PATIENCE = 0.3  # seconds that "is being created" waits for something better to say


class Publisher:
    """The status of one pod. `compute` gives the newest and whether it can wait a little."""

    def __init__(self, session: Session, namespace: str, name: str, uid: str, compute: Callable[[], tuple[JSON, bool]]):
        self._session = session
        self._namespace, self._name, self._uid = namespace, name, uid
        self._compute = compute
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._sent: JSON | None = None

    def changed(self) -> None:
        self._settled.clear()
        self._changed.set()

    def overruled(self, conditions: Iterable[Condition]) -> bool:
        """Whether somebody wrote another Ready than was sent last; then it is sent again."""
        sent = {c["type"]: c["status"] for c in (self._sent or {}).get("conditions", ())}
        if not any(c.type == "Ready" and c.status != sent.get("Ready", c.status) for c in conditions):
            return False
        self._sent = None
        self.changed()
        return True

    async def settled(self) -> None:
        """Wait until what is true now has been written (or the pod is gone)."""
        await self._settled.wait()

    async def run(self) -> None:
        """Until cancelled, or the pod is gone from the API."""
        delay = 0.05
        while True:
            await self._changed.wait()
            self._changed.clear()
            status, can_wait = self._compute()
            if can_wait:
                try:
                    async with asyncio.timeout(PATIENCE):
                        await self._changed.wait()
                    continue
                except TimeoutError:
                    status, _ = self._compute()
            if status != self._sent:
                try:
                    await self._send(status)
                except NotFound:
                    self._settled.set()
                    return
                except (ApiError, Unreachable) as error:
                    log.warning("status of pod %s/%s: %s; again in %.2f s", self._namespace, self._name, error, delay)
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(delay * 2, 5.0)
                    self._changed.set()
                    continue
                self._sent, delay = status, 0.05
            if not self._changed.is_set():
                self._settled.set()

    async def _send(self, status: JSON) -> None:
        patch = {"metadata": {"uid": self._uid}, "status": status}
        await self._session.patch(
            registry.POD, self._namespace, self._name, patch, subresource="status", patch_type=STRATEGIC_PATCH
        )
