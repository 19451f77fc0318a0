"""Keeps each Service's slices true. The way from a pod's change to the slice's write has no delay in it.

pod ──label index──► its Services' keys ──► queue ──► members ─► plan ─► writes
A pod's change that no endpoint shows (a container's status, an annotation) wakes nobody. The empty slice of a new
Service without pods is written at leisure.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from kubesvc.api.balance import Invalid, balance_of, key_of
from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.endpoints import pod_is_finished, pod_is_ready, unnamed_target_ports
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.labels import BALANCE, BALANCE_KEY, WEIGHT, ZONE
from kubesvc.api.meta import Object
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.registry import ENDPOINT_SLICE, POD, SERVICE, Kind
from kubesvc.client.events import WARNING
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.endpointslice import plan as planning
from kubesvc.controllers.endpointslice.members import Members, addresses_of, members
from kubesvc.controllers.endpointslice.triggers import Triggers
from kubesvc.controllers.writer import namespace_is_ending, together

log = logging.getLogger(__name__)

Key = tuple[str, str]
COMPONENT = "endpoint-slice-controller"


def endpoint_facts(pod: Pod | None) -> object:
    """What of a pod an endpoint shows; equal facts mean that no slice changes."""
    if pod is None:
        return None
    return (
        pod.metadata.uid,
        pod.metadata.labels,
        pod.metadata.annotations.get(WEIGHT),
        pod.metadata.deletion_timestamp is not None,
        pod_is_ready(pod),
        pod_is_finished(pod),
        addresses_of(pod),
        pod.spec.node_name,
        pod.spec.hostname,
        pod.spec.subdomain,
    )


class EndpointSliceController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self._triggers = Triggers()
        self._told: dict[Key, frozenset[str]] = {}  # Service -> what was wrong with annotations when last looked at
        self._writing: dict[Key, set[str]] = {}  # Service being written -> versions of its slices seen meanwhile
        self.queue: WorkQueue[Key] = WorkQueue("endpointslice")
        self._caches.services.on_change(self._service_changed)
        self._caches.pods.on_change(self._pod_changed)
        self._caches.slices.on_change(self._slice_changed)
        self._caches.nodes.on_change(self._node_changed)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=self._context.config.workers)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if old is None or new is None or _service_facts(old) != _service_facts(new):
            changed = new or old
            assert changed is not None
            if old is None and not self._caches.pods_of(changed):
                self.queue.add_at_leisure(changed.key)
            else:
                self.queue.add(changed.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if endpoint_facts(old) == endpoint_facts(new):
            return
        for pod in (old, new):
            if pod is not None:
                for key in self._caches.selectors.selecting(pod.namespace, pod.metadata.labels):
                    self.queue.add(key)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """A slice that somebody deleted or changed is put right; our own writes come by here too, and are set aside."""
        for found in (old, new):
            if found is not None and found.service_name:
                key = (found.namespace, found.service_name)
                if key in self._writing:
                    self._writing[key].add(new.metadata.resource_version if new else found.metadata.uid)
                else:
                    self.queue.add(key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is not None and new is not None and _zone(old) == _zone(new):
            return
        changed = new or old
        assert changed is not None
        for pod in self._caches.pods.by_index("node", changed.name):
            for key in self._caches.selectors.selecting(pod.namespace, pod.metadata.labels):
                self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        service: Service | None = self._caches.services.items.get(key)
        if service is None:  # its slices are its dependents: the garbage controller collects them
            self._triggers.forget(key)
            self._told.pop(key, None)
            await self._collect(key)
            return
        if service.spec.type == "ExternalName" or not service.spec.selector:
            return  # as upstream: slices there are stay as they are, for whoever takes over
        pods = self._caches.pods_of(service)
        found = members(service, pods, self._caches.nodes_of(pods))
        if found.missing_nodes:
            log.info("service %s/%s: pods on unknown nodes %s wait", *key, ", ".join(sorted(found.missing_nodes)))
        trigger = self._triggers.earliest(service, pods)
        slices = self._caches.slices.by_index("service", key)
        self._complain(service, pods, found)
        most = self._context.config.max_endpoints_per_slice
        plan = planning.plan(service, found.groups, slices, most=most, weights=found.weights)
        await self._apply(service, plan, trigger)
        self._triggers.settle(service, pods)

    def _complain(self, service: Service, pods: Iterable[Pod], found: Members) -> None:
        """Say once what is wrong with the annotations that choose endpoints, of the Service and of its pods, and with
        the names of ports."""
        wrong: dict[str, tuple[Kind, Object, str]] = {}
        for read in (balance_of, key_of):
            try:
                read(service)
            except Invalid as error:
                text = f"service {'/'.join(service.key)}: {error}"
                wrong[text] = (SERVICE, service, "InvalidBalance")
        for text in unnamed_target_ports(service, pods):
            wrong[f"service {'/'.join(service.key)}: {text}"] = (SERVICE, service, "TargetPortNotFound")
        for pod, text in found.complaints:
            wrong[text] = (POD, pod, "InvalidWeight")
        for text in wrong.keys() - self._told.get(service.key, frozenset()):
            kind, item, reason = wrong[text]
            self._context.recorder.record(COMPONENT, kind, item, WARNING, reason, text)
        if wrong:
            self._told[service.key] = frozenset(wrong)
        else:
            self._told.pop(service.key, None)

    async def _collect(self, key: Key) -> None:
        """Delete slices of ours whose Service is gone and that have lost their owner: nobody else would."""
        lost = [
            s
            for s in self._caches.slices.by_index("service", key)
            if planning.is_ours(s) and not s.metadata.owner_references and s.metadata.deletion_timestamp is None
        ]
        if lost and not await self._exists(key):
            await together(self._context.writer.delete(ENDPOINT_SLICE, s) for s in lost)

    async def _exists(self, key: Key) -> bool:
        """The server is asked: a slice may be seen before its Service is."""
        try:
            await self._context.session.get(SERVICE, *key)
        except NotFound:
            return False
        return True

    async def _apply(self, service: Service, plan: planning.Plan, trigger: str | None) -> None:
        writer = self._context.writer
        writes = [
            *(
                writer.patch(ENDPOINT_SLICE, d.found, planning.tree(service, d, trigger))
                for d in plan.update
                if d.found
            ),
            *(writer.create(ENDPOINT_SLICE, planning.tree(service, d, trigger)) for d in plan.create),
            *(writer.delete(ENDPOINT_SLICE, s) for s in plan.delete),
        ]
        if not writes:
            return
        seen = self._writing[service.key] = set()
        expected = {s.metadata.uid for s in plan.delete}
        try:
            answers = await together(writes)
            expected |= {a["metadata"]["resourceVersion"] for a in answers if a is not None}
        except ApiError as error:
            if not namespace_is_ending(error):
                raise
        finally:
            del self._writing[service.key]
            if not seen <= expected:  # somebody else wrote too
                self.queue.add(service.key)


def _service_facts(service: Service) -> object:
    annotations = service.metadata.annotations
    return service.spec, service.metadata.labels, annotations.get(BALANCE), annotations.get(BALANCE_KEY)


def _zone(node: Node) -> str:
    return node.metadata.labels.get(ZONE, "")
