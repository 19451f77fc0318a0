"""The controller of Services of type LoadBalancer.

    observe   Services and Nodes, from informers
    decide    plan.decide: ignore, ensure, clean up
    apply     the finalizer first, then the provider, then the status; on the way out the status first, then the
              provider, then the finalizer. So nothing is ever made that a crash could leak, and an address is given
              to another Service only after the API has said that the first one lost it.

A refusal isn't retried on a clock: the Service waits, with a condition and an event that say why, until it changes or
the provider says that something came free; then all that wait are served again, oldest first. Words of events follow
upstream's cloud-provider service controller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.labels import LOAD_BALANCER_CLEANUP
from kubesvc.api.meta import JSON, Condition, ObjectMeta, format_time
from kubesvc.api.nodes import Node
from kubesvc.api.registry import NODE, SERVICE
from kubesvc.client.events import NORMAL, WARNING, Recorder
from kubesvc.client.informer import Informer, Key
from kubesvc.client.queue import WorkQueue
from kubesvc.client.session import Session
from kubesvc.loadbalancer import plan
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.nodes import is_eligible
from kubesvc.loadbalancer.provider import Change, Provider, ProviderFailed, Refused

log = logging.getLogger(__name__)

COMPONENT = "service-controller"  # as upstream names it in events
STALE = 0.05  # seconds until a Service that changed under our hands is looked at again


class Controller:
    """Keeps every Service of type LoadBalancer that one of `providers` owns as the provider can make it."""

    def __init__(self, session: Session, providers: Sequence[Provider], config: LoadBalancerConfig) -> None:
        self._session = session
        self._providers = providers
        self._config = config
        self._events = Recorder(session)
        self._queue: WorkQueue[Key] = WorkQueue(
            "loadbalancer", first_delay=config.first_retry, max_delay=config.last_retry
        )
        self._services = Informer(session, SERVICE, Service, project=_slim)
        self._nodes = Informer(session, NODE, Node)
        self._ensured: dict[Key, Service] = {}  # service -> as it was when its provider was last asked
        self._waiting: set[Key] = set()  # refused
        self._hosts: dict[Key, frozenset[str]] = {}  # service -> nodes its load balancer was last given
        self._remarked: dict[Key, frozenset[str]] = {}  # service -> what its provider passes over, told already
        self._written: dict[Key, int] = {}  # service -> revision of our last write, until the informer has seen it

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run())
            group.create_task(self._nodes.run())
            group.create_task(self._events.run())
            await self._services.synced.wait()
            await self._nodes.synced.wait()
            for provider in self._providers:
                group.create_task(provider.run(self._provider_changed))
            for provider in self._providers:
                await provider.adopt([s for s in self._services.items.values() if self._owner(s) is provider])
            self._nodes.on_change(self._node_changed)
            self._services.on_change(self._service_changed)
            group.create_task(self._queue.run(self._reconcile, workers=self._config.workers))
            group.create_task(self._remind())

    # ── observe ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        seen = new or old
        if seen is not None and any(s is not None and _concerns(s) for s in (old, new)):
            self._queue.add(seen.key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Only what providers ask of eligible nodes concerns us: heartbeats come every few seconds."""
        if _as_target(old) != _as_target(new):
            self._look_at(k for k, s in self._services.items.items() if s.spec.type == plan.LOAD_BALANCER)

    def _provider_changed(self, change: Change | Key) -> None:
        if isinstance(change, Change):
            self._look_at(self._ensured if change is Change.RULES else self._waiting)
        elif change in self._ensured:
            self._queue.add(change)

    def _look_at(self, keys: Iterable[Key]) -> None:
        """Oldest first: who has waited longest is served first."""
        for key in sorted(keys, key=self._age):
            self._queue.add(key)

    def _age(self, key: Key) -> tuple[str, Key]:
        service = self._services.get(*key)
        return ((service and service.metadata.creation_timestamp) or "", key)

    def _owner(self, service: Service) -> Provider | None:
        """The provider of a Service of type LoadBalancer, dying ones included; None for every other."""
        if service.spec.type != plan.LOAD_BALANCER:
            return None
        wanted = service.spec.load_balancer_class
        if wanted is None:
            return next((p for p in self._providers if p.name == self._config.default_provider), None)
        return next((p for p in self._providers if p.owns(wanted)), None)

    # ── decide ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _reconcile(self, key: Key) -> None:
        service = self._services.get(*key)
        if service is not None and int(service.metadata.resource_version) < self._written.get(key, 0):
            return  # our own write comes back in a moment, and brings the key with it
        self._written.pop(key, None)
        before = self._ensured.get(key)
        if before is not None and (service is None or service.metadata.uid != before.metadata.uid):
            await self._forget(before)  # it went without waiting for its finalizer
        if service is None:
            self._waiting.discard(key)
            return
        owner = self._owner(service)
        step = plan.decide(
            service,
            owned=owner is not None,
            remembered=key in self._ensured,
            has_default=bool(self._config.default_provider),
        )
        try:
            if step is plan.Step.ENSURE and owner is not None:
                await self._ensure(owner, service)
            elif step is plan.Step.CLEAN_UP:
                await self._clean_up(service)
            elif self._config.alone and plan.is_nobodys(service):
                wanted = service.spec.load_balancer_class
                remedy = "leave it out for the default; a cloud's classes are those of `kubesvc up --cloud`"
                message = f"no load balancer here serves the loadBalancerClass {wanted!r}; {remedy}"
                await self._pending(service, service.status.load_balancer, "UnknownClass", message)
        except Conflict:
            self._queue.add_after(key, STALE)
        except NotFound:
            log.debug("service %s went away meanwhile", key)

    # ── apply ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ensure(self, provider: Provider, service: Service) -> None:
        if LOAD_BALANCER_CLEANUP not in service.metadata.finalizers:
            service = await self._patch(service, plan.add_finalizer(service))
        self._ensured[service.key] = service
        nodes = [node for node in self._nodes.items.values() if is_eligible(node)]
        if plan.ready_condition(service) is None:
            self._event(service, NORMAL, "EnsuringLoadBalancer", "Ensuring load balancer")
            if not nodes:
                self._event(
                    service, WARNING, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer"
                )
        try:
            status = await provider.ensure(service, nodes)
        except Refused as refused:
            self._waiting.add(service.key)
            await self._pending(service, refused.status, refused.reason, refused.message)
            return
        except ProviderFailed as failed:
            await self._pending(service, service.status.load_balancer, "ProviderFailed", str(failed))
            raise
        self._waiting.discard(service.key)
        where = ", ".join(i.ip or i.hostname for i in status.ingress)
        hosts = frozenset(node.name for node in nodes)
        before = self._hosts.get(service.key, hosts)
        self._hosts[service.key] = hosts
        if await self._show(service, status, _ready("True", "Ensured", f"the load balancer is {where}")):
            self._event(service, NORMAL, "EnsuredLoadBalancer", "Ensured load balancer")
        elif hosts != before:
            self._event(service, NORMAL, "UpdatedLoadBalancer", "Updated load balancer with new hosts")
        self._remark(service, provider.remarks(service))

    def _remark(self, service: Service, remarks: Sequence[str]) -> None:
        told = self._remarked.get(service.key, frozenset())
        for remark in remarks:
            if remark not in told:
                self._event(service, WARNING, "AnnotationIgnored", remark)
        self._remarked[service.key] = frozenset(remarks)

    async def _pending(self, service: Service, status: LoadBalancerStatus, reason: str, message: str) -> None:
        ready = _ready("False", reason, message)
        if await self._show(service, status, ready):
            self._failed(service, ready)

    async def _remind(self) -> None:
        """API servers forget Events, mostly after an hour: people who ask then are told why a Service waits as well."""
        while True:
            await asyncio.sleep(self._config.remind)
            for service in list(self._services.items.values()):
                ready = plan.ready_condition(service)
                if ready is not None and ready.status == "False":
                    self._failed(service, ready)

    def _failed(self, service: Service, ready: Condition) -> None:
        message = f"Error syncing load balancer: {ready.reason}: {ready.message}"
        self._event(service, WARNING, "SyncLoadBalancerFailed", message)

    async def _clean_up(self, service: Service) -> None:
        self._event(service, NORMAL, "DeletingLoadBalancer", "Deleting load balancer")
        patch = plan.status_patch(service, LoadBalancerStatus(), None, _now())
        if patch is not None:
            service = await self._patch(service, patch, subresource="status")
        try:
            await self._forget(service)
        except ProviderFailed as failed:
            self._event(service, WARNING, "SyncLoadBalancerFailed", f"Error deleting load balancer: {failed}")
            raise
        self._event(service, NORMAL, "DeletedLoadBalancer", "Deleted load balancer")
        if LOAD_BALANCER_CLEANUP in service.metadata.finalizers:
            left = await self._patch(service, plan.remove_finalizer(service))
            if left.metadata.deletion_timestamp is not None and not left.metadata.finalizers:
                # It is gone: whatever the informer shows until it knows is of before, and not to be cleaned up again.
                self._written[service.key] = int(left.metadata.resource_version) + 1

    async def _forget(self, service: Service) -> None:
        """Free what its provider has for it; without a class, which leaving the type wipes, what any of them has: the
        default may have been another."""
        wanted = service.spec.load_balancer_class
        for provider in self._providers:
            if wanted is None or provider.owns(wanted):
                await provider.delete(service)
        for known in (self._ensured, self._hosts, self._remarked):
            known.pop(service.key, None)
        self._waiting.discard(service.key)

    async def _show(self, service: Service, status: LoadBalancerStatus, ready: Condition) -> bool:
        """Publish; False when it was shown already."""
        patch = plan.status_patch(service, status, ready, _now())
        if patch is None:
            return False
        await self._patch(service, patch, subresource="status")
        return True

    async def _patch(self, service: Service, patch: JSON, *, subresource: str = "") -> Service:
        tree = await self._session.patch(SERVICE, *service.key, patch, subresource=subresource)
        patched = msgspec.convert(tree, Service)
        self._written[service.key] = int(patched.metadata.resource_version)
        return patched

    def _event(self, service: Service, event_type: str, reason: str, message: str) -> None:
        self._events.record(COMPONENT, SERVICE, service, event_type, reason, message)


def _concerns(service: Service) -> bool:
    return (
        service.spec.type == plan.LOAD_BALANCER
        or LOAD_BALANCER_CLEANUP in service.metadata.finalizers
        or plan.ready_condition(service) is not None
    )


def _slim(service: Service) -> Service:
    """Most Services are none of our business: keep their names alone."""
    meta = service.metadata
    if _concerns(service):
        return service
    return Service(
        metadata=ObjectMeta(
            name=meta.name, namespace=meta.namespace, uid=meta.uid, resource_version=meta.resource_version
        )
    )


def _as_target(node: Node | None) -> object:
    """What makes it a target, and which; None when it is none."""
    if node is None or not is_eligible(node):
        return None
    return node.metadata.labels, node.spec.provider_id, node.internal_ips, node.spec.pod_cidrs


def _ready(status: str, reason: str, message: str) -> Condition:
    return Condition(type=plan.READY, status=status, reason=reason, message=message)


def _now() -> str:
    return format_time(datetime.now(UTC))
