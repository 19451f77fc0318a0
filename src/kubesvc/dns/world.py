"""What the cluster has to say to DNS: informers of Services, EndpointSlices and Namespaces -> answers.

A change tells `answers` whose records are out of date, and which addresses lead back to whom: some microseconds. The
records themselves are made from these caches when somebody asks. Nothing is answered before all three have their first
full list. Objects are cut down to what records need as they come. A zone's serial is the newest revision of the API
that changed it: servers agree on what is newer, also after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from sys import intern

import msgspec

from kubesvc.api import labels
from kubesvc.api.core import Namespace, Service, ServicePort, ServiceSpec, ServiceStatus
from kubesvc.api.discovery import Endpoint, EndpointConditions, EndpointSlice, SlicePort
from kubesvc.api.endpoints import cluster_ips
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.registry import ENDPOINT_SLICE, NAMESPACE, SERVICE
from kubesvc.client.informer import Informer, Key
from kubesvc.client.session import Session
from kubesvc.dns import public
from kubesvc.dns.answers import Answers
from kubesvc.dns.clients import VerifiedPods
from kubesvc.dns.records import KUBE_DNS, Record, records_in
from kubesvc.dns.zones import Zone

log = logging.getLogger(__name__)

_READY = EndpointConditions()
SERIAL_SECONDS = 0.1  # for which changes share a serial


class World:
    """Keeps `answers` current. `synced` is set once the zone is answered for."""

    def __init__(self, session: Session, answers: Answers) -> None:
        self.services = Informer(session, SERVICE, Service, project=slim_service)
        self.slices = Informer(session, ENDPOINT_SLICE, EndpointSlice, project=slim_slice)
        self.namespaces = Informer(session, NAMESPACE, Namespace, project=slim_namespace)
        self.synced = asyncio.Event()
        self.names = public.Names(answers.zones)
        self._answers = answers
        self._serial_due: asyncio.TimerHandle | None = None
        self._on_serial: list[Callable[[list[Zone]], None]] = []
        self._on_names: list[Callable[[Key], None]] = []
        self._pods = VerifiedPods(session, answers) if answers.pod_mode == "verified" else None
        self.slices.index("service", lambda s: [(s.namespace, s.service_name)])
        self.services.on_change(self._service_changed)
        self.slices.on_change(self._slice_changed)
        self.namespaces.on_change(self._namespace_changed)

    def on_serial(self, handler: Callable[[list[Zone]], None]) -> None:
        """Call `handler` with the zones that have a new serial."""
        self._on_serial.append(handler)

    def on_names(self, handler: Callable[[Key], None]) -> None:
        """Call `handler` with each Service whose public names may have another holder now."""
        self._on_names.append(handler)

    async def run(self) -> None:
        """Follow the API until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.services.run())
            group.create_task(self.slices.run())
            group.create_task(self.namespaces.run())
            for cache in (self.services, self.slices, self.namespaces):
                await cache.synced.wait()
            if self._pods is not None:
                group.create_task(self._pods.run())
                await self._pods.pods.synced.wait()
            self._set_serial()
            self._answers.synced = True
            self.synced.set()
            log.info("answering for %d Services", len(self.services.items))

    def records(self, key: Key) -> Iterable[Record]:
        """Every record of a Service, as its objects are now."""
        service = self.services.get(*key)
        if service is None:
            return ()
        slices = self.slices.by_index("service", key)
        return records_in(self._answers.zones, service, slices, self._answers.ttl)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if new is not None:
            self._answers.promise(new.key, self.records)
            self._answers.changed(new.key, gone=cluster_ips(old) if old else (), come=cluster_ips(new))
        elif old is not None:
            self._answers.promise(old.key, None)
            self._answers.changed(old.key, gone=cluster_ips(old))
        if present := new or old:
            for name in self.names.update(present.key, new):
                self._publish(name)
        self._set_serial_soon()

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for piece in (new, old):  # what stays comes before it goes
            if piece is not None and piece.service_name:
                addresses = [one for endpoint in piece.endpoints for one in endpoint.addresses]
                owner = piece.namespace, piece.service_name
                come, gone = (addresses, ()) if piece is new else ((), addresses)
                service = self.services.get(*owner)
                alone = service is not None and bool(cluster_ips(service))
                self._answers.changed(owner, gone, come, endpoints_alone=alone)
        self._set_serial_soon()

    def _publish(self, name: str) -> None:
        """Answer a public name for whoever has it now."""
        encoded = public.encoded(name)
        if encoded is not None and self.names.served(name):
            holder = self.names.holder(name)
            service = self.services.get(*holder) if holder is not None else None
            at_apex = self._answers.zones.at(encoded) is not None
            found = public.records(encoded, service, self._answers.ttl, at_apex=at_apex) if service is not None else ()
            self._answers.publish(encoded, found)
        for key in self.names.claimants(name):
            for handler in self._on_names:
                handler(key)

    def _set_serial_soon(self) -> None:
        if self._answers.synced and self._serial_due is None and self._answers.serial_due:
            self._serial_due = asyncio.get_running_loop().call_later(SERIAL_SECONDS, self._set_serial)

    def _set_serial(self) -> None:
        self._serial_due = None
        revision = max(cache.revision for cache in (self.services, self.slices, self.namespaces))
        zones = self._answers.set_serial(revision & 0xFFFFFFFF)
        for handler in self._on_serial:
            handler(zones)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if present := new or old:
            self._answers.set_namespace(present.name, exists=new is not None)


def _meta(meta: ObjectMeta) -> ObjectMeta:
    owner = meta.labels.get(labels.SERVICE_NAME)
    return ObjectMeta(
        name=meta.name,
        namespace=intern(meta.namespace),
        resource_version=meta.resource_version,
        labels={labels.SERVICE_NAME: owner} if owner else {},
    )


@lru_cache(maxsize=4096)  # most Services have the ports of many others: one list for all of them
def _service_ports(ports: tuple[tuple[str, str, int, str | None], ...]) -> list[ServicePort]:
    return [
        ServicePort(name=name, protocol=protocol, port=port, app_protocol=app) for name, protocol, port, app in ports
    ]


@lru_cache(maxsize=4096)
def _slice_ports(ports: tuple[tuple[str | None, str | None, int | None], ...]) -> list[SlicePort]:
    return [SlicePort(name=name, protocol=protocol, port=port) for name, protocol, port in ports]


def slim_namespace(namespace: Namespace) -> Namespace:
    return Namespace(metadata=_meta(namespace.metadata))


def slim_service(service: Service) -> Service:
    """The fields that records are made of, and what an Event about a name needs."""
    spec = service.spec
    meta = _meta(service.metadata)
    asked = service.metadata.annotations.get(labels.PUBLIC_HOSTNAME)
    if asked or spec.type == "ExternalName" or service.key == KUBE_DNS:
        meta = msgspec.structs.replace(
            meta,
            uid=service.metadata.uid,
            creation_timestamp=service.metadata.creation_timestamp,
            annotations={labels.PUBLIC_HOSTNAME: asked} if asked else {},
        )
    return Service(
        metadata=meta,
        spec=ServiceSpec(
            type=spec.type,
            cluster_ip=next(iter(spec.cluster_ips), spec.cluster_ip),
            cluster_ips=spec.cluster_ips,
            external_name=spec.external_name,
            ports=_service_ports(tuple((p.name, p.protocol, p.port, p.app_protocol) for p in spec.ports)),
        ),
        status=ServiceStatus(load_balancer=service.status.load_balancer) if asked else ServiceStatus(),
    )


def slim_slice(piece: EndpointSlice) -> EndpointSlice:
    """The fields that records are made of; endpoints that aren't ready have none."""
    return EndpointSlice(
        metadata=_meta(piece.metadata),
        address_type=piece.address_type,
        endpoints=[
            Endpoint(addresses=e.addresses[:1], hostname=e.hostname, conditions=_READY)
            for e in piece.endpoints
            if e.ready
        ],
        ports=_slice_ports(tuple((p.name, p.protocol, p.port) for p in piece.ports or ())),
    )
