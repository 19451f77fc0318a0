"""A node agent without containers: pods bound to its nodes run, get an address, and go when asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.pods import Pod
from kubesvc.api.registry import NODE, POD
from kubesvc.client.informer import Informer
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import STRATEGIC_PATCH, Session

ENDS = "test.kubesvc.dev/ends"
"""An annotation: the phase in which the pod ends as soon as it runs."""


class Agent:
    """Reports every pod that has a node as Running; Ready too, unless `unready` says otherwise."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pods: Informer[Pod] = Informer(session, POD, Pod)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("agent")
        self._addresses = count(1)
        self._pods.on_change(lambda old, new: self._queue.add(new.key) if new else None)
        self.unready: Callable[[Pod], bool] = lambda pod: False
        self.deaf_to: set[str] = set()  # nodes whose agent is dead

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.run())
            group.create_task(self._queue.run(self._report, workers=8))

    async def _report(self, key: tuple[str, str]) -> None:
        pod = self._pods.items.get(key)
        if pod is None or not pod.spec.node_name or pod.spec.node_name in self.deaf_to:
            return
        with suppress(NotFound, Conflict):
            if pod.metadata.deletion_timestamp:
                if pod.metadata.finalizers and pod.status.phase not in ("Succeeded", "Failed"):
                    await self.end(pod, "Failed")
                await self._session.delete(POD, *key, uid=pod.metadata.uid, grace_seconds=0)
            elif pod.status.phase in ("Succeeded", "Failed"):
                return
            elif not pod.status.pod_ip:
                await self.report(pod, ready=not self.unready(pod), ip=f"10.244.0.{next(self._addresses)}")
            elif ending := pod.metadata.annotations.get(ENDS):
                await self.end(pod, ending)

    async def report(self, pod: Pod, *, ready: bool, ip: str = "") -> None:
        """Patch the pod's status; without `ip` its address stays."""
        turned = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now()}
        status: JSON = {"phase": "Running", "conditions": [turned]}
        if ip:
            status |= {"podIP": ip, "podIPs": [{"ip": ip}], "startTime": now()}
        await self._write(pod, status)

    async def end(self, pod: Pod, phase: str) -> None:
        """The pod's containers have ended: it is Succeeded or Failed."""
        turned = {"type": "Ready", "status": "False", "reason": f"Pod{phase}", "lastTransitionTime": now()}
        status: JSON = {"phase": phase, "conditions": [turned]}
        await self._write(pod, status)

    async def _write(self, pod: Pod, status: JSON) -> None:
        """Conditions of others stay."""
        patch = {"status": status}
        await self._session.patch(POD, *pod.key, patch, subresource="status", patch_type=STRATEGIC_PATCH)


def now() -> str:
    return format_time(datetime.now(UTC))


async def add_node(session: Session, name: str, **spec: Any) -> None:
    """A Ready node."""
    await session.create(NODE, {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": spec})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now()}
    await session.patch(NODE, "", name, {"status": {"conditions": [ready]}}, subresource="status")
