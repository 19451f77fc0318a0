"""Keeps the mirror slices of hand-written Endpoints true, and takes them away with what they mirror.

The object itself is read from the server when there is something to mirror: the shared cache keeps only a digest of
Endpoints, since nearly all of them are the endpoints controller's own.
"""

from __future__ import annotations

from kubesvc.api.core import Endpoints, Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import Object
from kubesvc.api.registry import ENDPOINT_SLICE, ENDPOINTS
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.mirroring.plan import MOST, Plan, is_mirror, is_mirrored, plan
from kubesvc.controllers.writer import namespace_is_ending, together

Key = tuple[str, str]
COMPONENT = "endpoint-slice-mirroring-controller"


class MirroringController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.queue: WorkQueue[Key] = WorkQueue("endpointslicemirroring")
        self._caches.endpoints.on_change(self._endpoints_changed)
        self._caches.services.on_change(self._service_changed)
        self._caches.slices.on_change(self._slice_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=4)

    def _endpoints_changed(self, old: Object | None, new: Object | None) -> None:
        changed = new or old
        assert changed is not None
        service = self._caches.services.items.get(changed.key)
        if service is None or not service.spec.selector:  # those of Services with one are not hand-written
            self.queue.add(changed.key)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if [bool(s and s.spec.selector) for s in (old, new)] == [True, True]:
            return
        changed = new or old
        assert changed is not None
        if old is None or new is None or bool(old.spec.selector) != bool(new.spec.selector):
            self.queue.add(changed.key)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for found in (old, new):
            if found is not None and found.service_name and is_mirror(found):
                self.queue.add((found.namespace, found.service_name))

    async def reconcile(self, key: Key) -> None:
        slices = self._caches.slices.by_index("service", key)
        if not is_mirrored(self._caches.services.items.get(key), self._caches.endpoints.items.get(key)):
            mirrors = [s for s in slices if is_mirror(s) and s.metadata.deletion_timestamp is None]
            await together(self._context.writer.delete(ENDPOINT_SLICE, s) for s in mirrors)
            return
        try:
            endpoints = await self._context.session.read(ENDPOINTS, Endpoints, *key)
        except NotFound:
            return  # its deletion is on its way to the cache
        decided = plan(endpoints, slices)
        await self._apply(decided)
        self._tell(endpoints, decided)

    async def _apply(self, decided: Plan) -> None:
        writer = self._context.writer
        try:
            await together(
                [
                    *(writer.create(ENDPOINT_SLICE, tree) for tree in decided.create),
                    *(writer.patch(ENDPOINT_SLICE, found, patch) for found, patch in decided.update),
                    *(writer.delete(ENDPOINT_SLICE, found) for found in decided.delete),
                ]
            )
        except ApiError as error:
            if not namespace_is_ending(error):
                raise

    def _tell(self, endpoints: Endpoints, decided: Plan) -> None:
        """Say what was left out, when that led to a write."""
        if not (decided.create or decided.update):
            return
        texts = []
        if decided.invalid:
            count = len(decided.invalid)
            texts.append(("InvalidIPAddress", f"Skipped {count} invalid IP addresses when mirroring to EndpointSlices"))
        if decided.skipped > len(decided.invalid):
            texts.append(
                (
                    "TooManyAddressesToMirror",
                    f"A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. "
                    f"{decided.skipped} addresses were skipped",
                )
            )
        for reason, text in texts:
            self._context.recorder.record(COMPONENT, ENDPOINTS, endpoints, "Warning", reason, text)
