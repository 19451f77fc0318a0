"""A node agent without containers: pods bound to its nodes run, get an address, and go when asked to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

from kubesvc.api.core import Pod
from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.meta import JSON, Object, format_time
from kubesvc.api.registry import NODE, POD, Kind
from kubesvc.client.informer import Informer, wait_synced
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import Session

DEADLINE = 20.0
"""Seconds a story may wait for one thing."""


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
                await self._session.delete(POD, *key, uid=pod.metadata.uid, grace_seconds=0)
            elif not pod.status.pod_ip:
                await self.report(pod, ready=not self.unready(pod), ip=f"10.244.0.{next(self._addresses)}")

    async def report(self, pod: Pod, *, ready: bool, ip: str = "") -> None:
        """Patch the pod's status; without `ip` its address stays."""
        turned = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now()}
        status: JSON = {"phase": "Running", "conditions": [turned]}
        if ip:
            status |= {"podIP": ip, "podIPs": [{"ip": ip}], "startTime": now()}
        await self._session.patch(POD, pod.namespace, pod.name, {"status": status}, subresource="status")


def now() -> str:
    return format_time(datetime.now(UTC))


async def add_node(session: Session, name: str, **spec: Any) -> None:
    """A Ready node."""
    await session.create(NODE, {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": spec})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now()}
    await session.patch(NODE, "", name, {"status": {"conditions": [ready]}}, subresource="status")


class Watcher:
    """Copies of some kinds, and a wait for them to show something."""

    def __init__(self, session: Session, *kinds: Kind) -> None:
        self.of: dict[str, Informer[Any]] = {k.kind: Informer(session, k, k.view) for k in kinds}
        self._changed = asyncio.Event()
        for informer in self.of.values():
            informer.on_change(lambda old, new: self._changed.set())

    def all(self, kind: Kind, namespace: str = "default") -> list[Any]:
        """Objects of one namespace by name."""
        return sorted((o for o in self.of[kind.kind].items.values() if o.namespace == namespace), key=_name)

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Any:
        return self.of[kind.kind].items.get((namespace if kind.namespaced else "", name))

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until `holds()`; fails after the deadline, saying `what` never came to be."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            shown = {k: sorted(i.items) for k, i in self.of.items()}
            raise AssertionError(f"never came to be: {what}; there are {shown}") from None


def _name(item: Object) -> str:
    return item.name


@asynccontextmanager
async def watching(session: Session, *kinds: Kind) -> AsyncIterator[Watcher]:
    """A Watcher of `kinds`, synced."""
    watcher = Watcher(session, *kinds)
    async with running(*(i.run() for i in watcher.of.values())):
        await wait_synced(watcher.of.values())
        yield watcher


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    """`coroutines` as tasks while the block runs; one that ends by itself fails the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(c) for c in coroutines]
        yield
        for task in tasks:
            assert not task.done() or task.cancelled(), f"{task} ended by itself"
            task.cancel()
