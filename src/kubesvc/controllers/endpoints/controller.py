"""Keeps the Endpoints object of each Service with a selector true, for `kubectl get endpoints` and older clients.

It is worked in its own queue and at leisure, so that it never stands before a slice's write.
"""

from __future__ import annotations

from kubesvc.api.core import Service
from kubesvc.api.errors import ApiError
from kubesvc.api.labels import ENDPOINTS_CONTROLLER, ENDPOINTS_MANAGED_BY
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.api.registry import ENDPOINTS
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.endpoints.plan import plan
from kubesvc.controllers.endpointslice.controller import endpoint_facts
from kubesvc.controllers.endpointslice.triggers import Triggers
from kubesvc.controllers.slim import Shown
from kubesvc.controllers.writer import namespace_is_ending

Key = tuple[str, str]


class EndpointsController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self._triggers = Triggers()
        self._writing: dict[Key, set[str]] = {}  # Endpoints being written -> versions of them seen meanwhile
        self._bereft: set[Key] = set()  # of a Service seen deleted: its Endpoints go too, whoever wrote them
        self.queue: WorkQueue[Key] = WorkQueue("endpoints")
        self._caches.services.on_change(self._service_changed)
        self._caches.pods.on_change(self._pod_changed)
        self._caches.endpoints.on_change(self._endpoints_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=self._context.config.workers)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        changed = new or old
        assert changed is not None
        if new is None:
            self._bereft.add(changed.key)
        if old is None or new is None or (old.spec, old.metadata.labels) != (new.spec, new.metadata.labels):
            self.queue.add_at_leisure(changed.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if endpoint_facts(old) == endpoint_facts(new):
            return
        for pod in (old, new):
            if pod is not None:
                for key in self._caches.selectors.selecting(pod.namespace, pod.metadata.labels):
                    self.queue.add_at_leisure(key)

    def _endpoints_changed(self, old: Shown | None, new: Shown | None) -> None:
        changed = new or old
        assert changed is not None
        if changed.key in self._writing:
            self._writing[changed.key].add(new.metadata.resource_version if new else "")
        else:
            self.queue.add_at_leisure(changed.key)

    async def reconcile(self, key: Key) -> None:
        service: Service | None = self._caches.services.items.get(key)
        found: Shown | None = self._caches.endpoints.items.get(key)
        if service is None:
            self._triggers.forget(key)
            if found is not None and (key in self._bereft or _is_ours(found)):
                await self._context.writer.delete(ENDPOINTS, found)
            self._bereft.discard(key)
            return
        self._bereft.discard(key)
        if service.spec.type == "ExternalName" or not service.spec.selector:
            return
        pods = self._caches.pods_of(service)
        trigger = self._triggers.earliest(service, pods)
        tree = plan(service, pods, found, trigger)
        if tree is not None:
            await self._write(service, found, tree)
        self._triggers.settle(service, pods)

    async def _write(self, service: Service, found: Shown | None, tree: JSON) -> None:
        seen = self._writing[service.key] = set()
        expected = set()
        try:
            if found is not None:
                answer = await self._context.writer.patch(ENDPOINTS, found, tree)
                expected.add(answer["metadata"]["resourceVersion"])
            elif service.metadata.deletion_timestamp is None:
                answer = await self._context.writer.create(ENDPOINTS, tree)
                expected.add(answer["metadata"]["resourceVersion"])
        except ApiError as error:
            if not namespace_is_ending(error):
                raise
        finally:
            del self._writing[service.key]
            if not seen <= expected:  # somebody else wrote too
                self.queue.add_at_leisure(service.key)


def _is_ours(found: Shown) -> bool:
    return found.metadata.labels.get(ENDPOINTS_MANAGED_BY) == ENDPOINTS_CONTROLLER
