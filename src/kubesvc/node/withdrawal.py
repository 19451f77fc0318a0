"""Before a pod is told to end: every node has stopped picking it for new connections.

    pod deleted ─► its slices say terminating, at revision R ─► each Ready node's Lease says R or more ─► SIGTERM

Without this a server that ends at once is still picked by nodes that haven't heard, and their clients are refused. The
wait is bounded, short where the pod is in no slice, and ends when the deletion is forced. Slices and Leases are
followed only while some pod waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import NODE_LEASES, PROGRAMMED
from kubesvc.api.meta import Object
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.registry import ENDPOINT_SLICE, LEASE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session

log = logging.getLogger(__name__)

_IN_FLIGHT = 0.2  # seconds for what was on its way to the pod: connections made, requests not yet answered


def withdrawn_at(uid: str, slices: Iterable[EndpointSlice]) -> int | None:
    """The revision at which the last of the slices said that pod `uid` terminates; 0 when none of them has it, None
    while one still offers it."""
    newest = 0
    for found in slices:
        mine = [e for e in found.endpoints if e.target_ref is not None and e.target_ref.uid == uid]
        if any(not endpoint.terminating for endpoint in mine):
            return None
        if mine:
            newest = max(newest, int(found.metadata.resource_version))
    return newest


def behind(revision: int, nodes: Iterable[Node], leases: Iterable[Object]) -> list[str]:
    """The Ready nodes that haven't said that they have `revision` in force."""
    said = {lease.name: int(lease.metadata.annotations.get(PROGRAMMED, "0")) for lease in leases}
    return [node.name for node in nodes if node.ready and said.get(node.name, 0) < revision]


class Withdrawal:
    """Of all pods of this node. `longest`: seconds a pod waits at most; 0: none does."""

    def __init__(self, session: Session, nodes: Informer[Node], longest: float) -> None:
        self._session = session
        self._nodes = nodes
        self._longest = longest
        self._leases: Informer[Object] | None = None
        self._slices: dict[str, Informer[EndpointSlice]] = {}  # namespace -> its slices
        self._waiting: dict[str, int] = {}  # namespace -> pods that wait
        self._tasks: dict[str, asyncio.Task[None]] = {}  # namespace; "" is the Leases'

    async def wait(self, pod: Pod, forced: asyncio.Event) -> None:
        """Return when no node picks the pod for new connections any more, when that took too long, or when somebody
        who deletes it by force wants no waiting."""
        if self._longest <= 0:
            return
        withdrawn = asyncio.ensure_future(self._withdrawn(pod))
        hurried = asyncio.ensure_future(forced.wait())
        try:
            await asyncio.wait((withdrawn, hurried), return_when=asyncio.FIRST_COMPLETED)
            if withdrawn.done():
                withdrawn.result()
        finally:
            withdrawn.cancel()
            hurried.cancel()
            await asyncio.gather(withdrawn, hurried, return_exceptions=True)

    async def _withdrawn(self, pod: Pod) -> None:
        try:
            async with asyncio.timeout(self._longest), self._followed(pod.namespace) as (slices, leases):
                await self._until_withdrawn(pod, slices, leases)
        except TimeoutError:
            log.warning("pod %s/%s: told to end although not every node said that it no longer picks it", *pod.key)

    async def _until_withdrawn(self, pod: Pod, slices: Informer[EndpointSlice], leases: Informer[Object]) -> None:
        await slices.synced.wait()
        uid = pod.metadata.uid
        await slices.until(lambda: withdrawn_at(uid, slices.items.values()) is not None)
        revision = withdrawn_at(uid, slices.items.values())
        if not revision:
            return
        await leases.synced.wait()
        await leases.until(lambda: not behind(revision, self._nodes.items.values(), leases.items.values()))
        await asyncio.sleep(_IN_FLIGHT)

    @asynccontextmanager
    async def _followed(self, namespace: str) -> AsyncIterator[tuple[Informer[EndpointSlice], Informer[Object]]]:
        """The slices of a namespace and every Lease, shared by all who wait."""
        if self._leases is None:
            self._leases = Informer(self._session, LEASE, Object, namespace=NODE_LEASES)
            self._tasks[""] = asyncio.create_task(self._leases.run())
        if namespace not in self._slices:
            informer = Informer(self._session, ENDPOINT_SLICE, EndpointSlice, namespace=namespace)
            self._slices[namespace] = informer
            self._tasks[namespace] = asyncio.create_task(informer.run())
        self._waiting[namespace] = self._waiting.get(namespace, 0) + 1
        try:
            yield self._slices[namespace], self._leases
        finally:
            self._waiting[namespace] -= 1
            if not self._waiting[namespace]:
                del self._waiting[namespace], self._slices[namespace]
                self._tasks.pop(namespace).cancel()
            if not self._waiting:
                self._leases = None
                self._tasks.pop("").cancel()
