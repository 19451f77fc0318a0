"""Says which state of the EndpointSlices this node has in force, while that matters to somebody.

    a slice holds a terminating endpoint ─► after each programming: the Lease's annotation, at most every 100 ms
    none does                            ─► silence

A node's agent sends a pod its SIGTERM when every node has said that it no longer picks the pod: so nobody's
connection is refused in a rollout. Best effort: who waits, waits for a bounded time.
"""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import AlreadyExists, ApiError, NotFound
from kubesvc.api.labels import NODE_LEASES, PROGRAMMED
from kubesvc.api.registry import LEASE
from kubesvc.client.session import Session, Unreachable

log = logging.getLogger(__name__)

_PACE = 0.1  # seconds between two reports


class Reporter:
    """Feed it with `slice_changed` and `programmed`; `run` writes until cancelled."""

    def __init__(self, session: Session, node_name: str) -> None:
        self._session = session
        self._node_name = node_name
        self._terminating: set[tuple[str, str]] = set()  # slices with a terminating endpoint
        self._revision = 0
        self._reported = 0
        self._wake = asyncio.Event()

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if new is not None and any(endpoint.terminating for endpoint in new.endpoints):
            self._terminating.add(new.key)
        elif old is not None:
            self._terminating.discard(old.key)

    def programmed(self, revision: int) -> None:
        """All slices up to `revision` are in force."""
        self._revision = revision
        if self._terminating and revision > self._reported:
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            revision = self._revision
            try:
                await self._report(revision)
                self._reported = revision
            except (ApiError, Unreachable) as error:
                log.info("revision %d not reported in Lease %s: %s", revision, self._node_name, error)
                self._wake.set()
            await asyncio.sleep(_PACE)

    async def _report(self, revision: int) -> None:
        patch = {"metadata": {"annotations": {PROGRAMMED: str(revision)}}}
        try:
            await self._session.patch(LEASE, NODE_LEASES, self._node_name, patch)
        except NotFound:
            meta = {"name": self._node_name, "namespace": NODE_LEASES, **patch["metadata"]}
            try:
                await self._session.create(LEASE, {"metadata": meta, "spec": {"holderIdentity": self._node_name}})
            except AlreadyExists:
                await self._session.patch(LEASE, NODE_LEASES, self._node_name, patch)
