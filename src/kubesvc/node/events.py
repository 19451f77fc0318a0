"""Events about pods, in upstream's words, written when nothing more urgent is waiting.

A repeated event is one object whose count grows. Losing one is not an error: what they say is in the status too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from datetime import UTC, datetime

from kubesvc.api import registry
from kubesvc.api.core import Pod
from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON, format_time
from kubesvc.client.session import MERGE_PATCH, Session, Unreachable

log = logging.getLogger(__name__)

SETTLE = 0.3  # seconds: a pod's start comes first, its story after
REMEMBERED = 2000  # events whose repetition is counted

_Key = tuple[str, str, str, str]  # pod uid, reason, message, field path


class Recorder:
    """Takes events from anywhere in the agent; `run` writes them."""

    def __init__(self, session: Session, node_name: str) -> None:
        self._session = session
        self._node_name = node_name
        self._queue: asyncio.Queue[tuple[_Key, JSON]] = asyncio.Queue(maxsize=1000)
        self._known: OrderedDict[_Key, tuple[str, int]] = OrderedDict()  # -> event name, count

    def record(self, pod: Pod, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        path = f"spec.containers{{{container}}}" if container else ""
        if container and any(c.name == container for c in pod.spec.init_containers):
            path = f"spec.initContainers{{{container}}}"
        now = format_time(datetime.now(UTC))
        event: JSON = {
            "metadata": {"name": f"{pod.name}.{time.time_ns():x}", "namespace": pod.namespace},
            "involvedObject": {
                "kind": "Pod",
                "apiVersion": "v1",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.metadata.uid,
                "resourceVersion": pod.metadata.resource_version,
                "fieldPath": path,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "kubelet", "host": self._node_name},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node_name,
        }
        try:
            self._queue.put_nowait(((pod.metadata.uid, reason, message, path), event))
        except asyncio.QueueFull:
            log.debug("too many events: dropped %s %s", reason, message)

    async def run(self) -> None:
        while True:
            first = await self._queue.get()
            await asyncio.sleep(SETTLE)
            batch = [first]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            for key, event in batch:
                try:
                    await self._write(key, event)
                except (ApiError, Unreachable) as error:
                    log.debug("event %s %s not written: %s", key[1], key[2], error)

    async def _write(self, key: _Key, event: JSON) -> None:
        namespace = event["metadata"]["namespace"]
        if key in self._known:
            name, count = self._known[key]
            patch = {"count": count + 1, "lastTimestamp": event["lastTimestamp"]}
            await self._session.patch(registry.EVENT, namespace, name, patch, patch_type=MERGE_PATCH)
            self._known[key] = (name, count + 1)
            return
        await self._session.create(registry.EVENT, event)
        self._known[key] = (event["metadata"]["name"], 1)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
