"""Events about names, on the Services they belong to, so that `kubectl describe` says why a name isn't answered.

Every node's server sees the same world; the one whose address is the first behind kube-dns speaks for all. A finding
is said when it is new; ExternalNames are examined again from time to time, as what they lead to isn't ours.
"""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api import labels
from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.registry import SERVICE
from kubesvc.client.events import NORMAL, WARNING, Recorder
from kubesvc.client.informer import Key
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import Session
from kubesvc.dns.external import Examiner, Unknown
from kubesvc.dns.public import Finding
from kubesvc.dns.records import KUBE_DNS
from kubesvc.dns.world import World

log = logging.getLogger(__name__)

COMPONENT = "kubesvc-dns"
WORKERS = 4  # that wait for others' servers
AGAIN_SECONDS = 300.0  # until an ExternalName is examined again
UNKNOWN_SECONDS = 15.0  # the same, when nobody could say


def has_names(service: Service) -> bool:
    """May there be something to say about its names?"""
    return service.spec.type == "ExternalName" or labels.PUBLIC_HOSTNAME in service.metadata.annotations


class Reporter:
    """Says what `world` and `examiner` find. `address` is where this server is reached."""

    def __init__(self, session: Session, world: World, examiner: Examiner, *, address: str, host: str) -> None:
        self._world = world
        self._examiner = examiner
        self._address = address
        self._recorder = Recorder(session, host=host)
        self._queue: WorkQueue[Key] = WorkQueue("names")
        self._said: dict[Key, frozenset[Finding]] = {}
        self._spoke = False

    async def run(self) -> None:
        """Report until cancelled; `world` must have synced."""
        self._world.services.on_change(self._service_changed)
        self._world.slices.on_change(self._slice_changed)
        self._world.on_names(self._queue.add)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run())
            group.create_task(self._queue.run(self._examine, workers=WORKERS))

    def loop_found(self, message: str) -> None:
        """Say that an upstream leads back here: each server has resolvers of its own."""
        service = self._world.services.get(*KUBE_DNS)
        if service is not None:
            self._recorder.record(COMPONENT, SERVICE, service, WARNING, "ForwardingLoop", message)

    def speaks(self) -> bool:
        """Is it on this server to speak?"""
        behind = [
            address
            for piece in self._world.slices.by_index("service", KUBE_DNS)
            for endpoint in piece.endpoints
            for address in endpoint.addresses
            if (":" in address) == (":" in self._address)
        ]
        return not behind or min(behind) == self._address

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        for service in (old, new):
            if service is not None and has_names(service):
                self._queue.add(service.key)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if not any(one is not None and (one.namespace, one.service_name) == KUBE_DNS for one in (old, new)):
            return
        before, self._spoke = self._spoke, self.speaks()
        if self._spoke and not before:
            for service in self._world.services.items.values():
                if has_names(service):
                    self._queue.add(service.key)

    async def _examine(self, key: Key) -> None:
        service = self._world.services.get(*key)
        if service is None or not self.speaks():
            self._said.pop(key, None)
            return
        found = list(self._world.names.findings(service))
        if service.spec.type == "ExternalName":
            try:
                found += await self._examiner.findings(service)
            except Unknown:
                self._queue.add_after(key, UNKNOWN_SECONDS)
                return
            self._queue.add_after(key, AGAIN_SECONDS)
        before = self._said.get(key, frozenset())
        self._said[key] = frozenset(found)
        for one in found:
            if one not in before:
                kind = WARNING if one.warning else NORMAL
                self._recorder.record(COMPONENT, SERVICE, service, kind, one.reason, one.message)
