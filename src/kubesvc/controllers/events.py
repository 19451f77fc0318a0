"""core/v1 Events: what a controller did to an object, for `kubectl describe` and `kubectl get events`.

The same thing said again about the same object raises `count` and `lastTimestamp` of the Event already written.
Recording never delays a reconciler: Events wait in a bounded queue, and are dropped when it is full.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import JSON, Object, format_time
from kubesvc.api.registry import EVENT, Kind
from kubesvc.client.session import Session, Unreachable

log = logging.getLogger(__name__)

REMEMBERED = 4096
"""Events whose count can still be raised."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What is said, about which object, by whom. Equal ones are one Event with a count."""

    component: str
    type: str  # Normal | Warning
    reason: str
    message: str
    kind: str
    api_version: str
    namespace: str
    name: str
    uid: str

    def tree(self, event_name: str, moment: datetime, resource_version: str) -> JSON:
        """The Event's first form. Those about cluster-scoped objects live in `default`, as upstream's do."""
        involved = {
            "kind": self.kind,
            "apiVersion": self.api_version,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "resourceVersion": resource_version,
        }
        return {
            "metadata": {"name": event_name, "namespace": self.namespace or "default"},
            "involvedObject": {k: v for k, v in involved.items() if v},
            "type": self.type,
            "reason": self.reason,
            "message": self.message[:1024],
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "reportingInstance": "",
            "firstTimestamp": format_time(moment),
            "lastTimestamp": format_time(moment),
            "eventTime": None,
            "count": 1,
        }


class Recorder:
    """`record` from anywhere; `run` writes."""

    def __init__(self, session: Session, now: Callable[[], datetime]) -> None:
        self._session = session
        self._now = now
        self._queue: asyncio.Queue[tuple[Happening, str]] = asyncio.Queue(maxsize=1000)
        self._written: OrderedDict[Happening, tuple[str, int]] = OrderedDict()  # -> (Event's name, count)
        self._serial = 0

    def record(self, component: str, kind: Kind, item: Object, type_: str, reason: str, message: str) -> None:
        """Say `message` about `item`; `type_` is Normal or Warning."""
        happening = Happening(
            component, type_, reason, message, kind.kind, kind.api_version, item.namespace, item.name, item.metadata.uid
        )
        try:
            self._queue.put_nowait((happening, item.metadata.resource_version))
        except asyncio.QueueFull:
            log.debug("event dropped: %s %s: %s", reason, item.key, message)

    async def run(self) -> None:
        while True:
            happening, resource_version = await self._queue.get()
            try:
                await self._write(happening, resource_version)
            except (ApiError, Unreachable) as error:  # as when its namespace is going: an Event isn't worth more
                log.debug("event %s about %s/%s: %s", happening.reason, happening.namespace, happening.name, error)

    async def _write(self, happening: Happening, resource_version: str) -> None:
        moment = self._now()
        before = self._written.pop(happening, None)
        if before is not None:
            name, count = before
            patch = {"count": count + 1, "lastTimestamp": format_time(moment)}
            try:
                await self._session.patch(EVENT, happening.namespace or "default", name, patch)
            except NotFound:
                before = None  # it was deleted: start over
            else:
                self._written[happening] = (name, count + 1)
        if before is None:
            self._serial += 1
            name = f"{happening.name}.{int(moment.timestamp() * 1e6) * 1000 + self._serial % 1000:016x}"
            await self._session.create(EVENT, happening.tree(name, moment, resource_version))
            self._written[happening] = (name, 1)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
