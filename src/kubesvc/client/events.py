"""core/v1 Events: what a room did to an object, for `kubectl describe` and `kubectl get events`.

The same thing said again about the same object raises `count` and `lastTimestamp` of the Event already written.
Recording is best effort and never delays a caller: Events wait in a bounded queue, are dropped when it is full, and are
forgotten when they can't be written, because no decision ever depends on one. Follows client-go tools/record.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import JSON, Object, format_time
from kubesvc.api.registry import EVENT, Kind
from kubesvc.client.session import Session, Unreachable

log = logging.getLogger(__name__)

NORMAL = "Normal"
WARNING = "Warning"

WAITING = 1000
"""Events that may wait to be written."""
REMEMBERED = 4096
"""Events whose count can still be raised."""


class Happening(msgspec.Struct, frozen=True):
    """What is said, about which object, by whom. Equal ones are one Event with a count."""

    component: str
    host: str  # "" for components that are of no node
    type: str  # NORMAL | WARNING
    reason: str
    message: str
    kind: str
    api_version: str
    namespace: str
    name: str
    uid: str
    field_path: str  # of the part it is about, as spec.containers{web}; "" for the whole

    def tree(self, event_name: str, moment: datetime, resource_version: str) -> JSON:
        """The Event's first form. Those about cluster-scoped objects live in `default`, as upstream's do."""
        involved = {
            "kind": self.kind,
            "apiVersion": self.api_version,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "resourceVersion": resource_version,
            "fieldPath": self.field_path,
        }
        source = {"component": self.component, "host": self.host}
        return {
            "metadata": {"name": event_name, "namespace": self.namespace or "default"},
            "involvedObject": {k: v for k, v in involved.items() if v},
            "type": self.type,
            "reason": self.reason,
            "message": self.message[:1024],
            "source": {k: v for k, v in source.items() if v},
            "reportingComponent": self.component,
            "reportingInstance": self.host,
            "firstTimestamp": format_time(moment),
            "lastTimestamp": format_time(moment),
            "eventTime": None,
            "count": 1,
        }


class _Saying(msgspec.Struct, frozen=True):
    happening: Happening
    moment: datetime
    resource_version: str  # the object's


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Recorder:
    """`record` from anywhere; `run` writes."""

    def __init__(
        self, session: Session, *, host: str = "", settle: float = 0.0, now: Callable[[], datetime] = _utc_now
    ) -> None:
        """`host`: the node whose component speaks. `settle`: seconds that Events let more urgent writes go first."""
        self._session = session
        self._host = host
        self._settle = settle
        self._now = now
        self._queue: asyncio.Queue[_Saying] = asyncio.Queue(maxsize=WAITING)
        self._written: OrderedDict[Happening, tuple[str, int]] = OrderedDict()  # -> (Event's name, count)
        self._serial = 0

    def record(
        self, component: str, kind: Kind, item: Object, type_: str, reason: str, message: str, *, field_path: str = ""
    ) -> None:
        """Say `message` about `item`; `type_` is NORMAL or WARNING, `reason` CamelCase."""
        happening = Happening(
            component,
            self._host,
            type_,
            reason,
            message,
            kind.kind,
            kind.api_version,
            item.namespace,
            item.name,
            item.metadata.uid,
            field_path,
        )
        try:
            self._queue.put_nowait(_Saying(happening, self._now(), item.metadata.resource_version))
        except asyncio.QueueFull:
            log.debug("event dropped: %s %s: %s", reason, item.key, message)

    async def run(self) -> None:
        """Write what was recorded, in its order, until cancelled."""
        while True:
            batch = [await self._queue.get()]
            if self._settle:
                await asyncio.sleep(self._settle)
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            for said in batch:
                try:
                    await self._write(said)
                except (ApiError, Unreachable) as error:  # as when its namespace is going: an Event isn't worth more
                    told = said.happening
                    log.debug("event %s about %s/%s: %s", told.reason, told.namespace, told.name, error)

    async def _write(self, said: _Saying) -> None:
        happening, moment = said.happening, said.moment
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
            await self._session.create(EVENT, happening.tree(name, moment, said.resource_version))
            self._written[happening] = (name, 1)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
