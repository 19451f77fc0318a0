"""One informer a kind, shared by every controller, with the indexes they ask.

Objects are cut down to what decisions read (slim.py): kinds that only own or are owned to bare metadata. Events aren't
kept at all, since nothing reads them here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from kubesvc.api import registry
from kubesvc.api.apps import (
    ControllerRevision,
    DaemonSet,
    Deployment,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
)
from kubesvc.api.batch import CronJob, Job
from kubesvc.api.certificates import CertificateSigningRequest
from kubesvc.api.coordination import Lease
from kubesvc.api.core import ConfigMap, Endpoints, Namespace, Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.meta import Object
from kubesvc.api.networking import ServiceCIDR
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.policy import PodDisruptionBudget
from kubesvc.api.registry import Kind
from kubesvc.api.storage import PersistentVolume, PersistentVolumeClaim, StorageClass, claim_names
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.controllers.ownership import controller_of
from kubesvc.controllers.selection import Selectors
from kubesvc.controllers.slim import as_replica_set, bare, shown, slim_pod, slim_service, slim_slice, without_data

NOT_CACHED = (registry.EVENT,)


def _controller(item: Object) -> Iterable[Hashable]:
    """Under its controller's uid, or under its namespace when it has none and may be adopted."""
    controller = controller_of(item)
    return (controller.uid,) if controller else (("orphan", item.namespace),)


def _labels(item: Object) -> Iterable[Hashable]:
    return [(item.namespace, key, value) for key, value in item.metadata.labels.items()]


def _owners(item: Object) -> Iterable[Hashable]:
    return [r.uid for r in item.metadata.owner_references]


class Caches:
    """`of` maps each cached kind's (group, plural) -> its informer; the attributes are those read as typed views."""

    def __init__(self, session: Session) -> None:
        self.of: dict[tuple[str, str], Informer[Any]] = {}
        self.custom: dict[tuple[str, str], Kind] = {}  # (group, kind) -> the custom kind
        self._told: list[Callable[[Kind], None]] = []
        self._session = session
        self.pods = self._typed(registry.POD, Pod, slim_pod)
        self.nodes = self._typed(registry.NODE, Node)
        self.services = self._typed(registry.SERVICE, Service, slim_service)
        self.slices = self._typed(registry.ENDPOINT_SLICE, EndpointSlice, slim_slice)
        self.endpoints = self._typed(registry.ENDPOINTS, Endpoints, shown)
        self.leases = self._typed(registry.LEASE, Lease)
        self.service_cidrs = self._typed(registry.SERVICE_CIDR, ServiceCIDR)
        self.namespaces = self._typed(registry.NAMESPACE, Namespace)
        self.config_maps = self._typed(registry.CONFIG_MAP, ConfigMap, without_data)
        self.deployments = self._typed(registry.DEPLOYMENT, Deployment)
        self.replica_sets = self._typed(registry.REPLICA_SET, ReplicaSet)
        self.replication_controllers = self._typed(
            registry.REPLICATION_CONTROLLER, ReplicationController, as_replica_set
        )
        self.stateful_sets = self._typed(registry.STATEFUL_SET, StatefulSet)
        self.daemon_sets = self._typed(registry.DAEMON_SET, DaemonSet)
        self.jobs = self._typed(registry.JOB, Job)
        self.cron_jobs = self._typed(registry.CRON_JOB, CronJob)
        self.controller_revisions = self._typed(registry.CONTROLLER_REVISION, ControllerRevision)
        self.signing_requests = self._typed(registry.CERTIFICATE_SIGNING_REQUEST, CertificateSigningRequest)
        self.claims = self._typed(registry.PERSISTENT_VOLUME_CLAIM, PersistentVolumeClaim)
        self.volumes = self._typed(registry.PERSISTENT_VOLUME, PersistentVolume)
        self.budgets = self._typed(registry.POD_DISRUPTION_BUDGET, PodDisruptionBudget)
        self.storage_classes = self._typed(registry.STORAGE_CLASS, StorageClass)
        for kind in registry.stored():
            if kind not in NOT_CACHED and (kind.group, kind.plural) not in self.of:
                self.of[kind.group, kind.plural] = Informer(session, kind, Object, project=bare)

        self.selectors = Selectors()
        self.services.on_change(self._service_changed)
        self.slices.index("service", lambda s: ((s.namespace, s.service_name),))
        self.pods.index("label", _labels)
        self.pods.index("node", lambda p: (p.spec.node_name,))
        self.pods.index("claim", lambda p: [(p.namespace, name) for name in claim_names(p)])
        for informer in (self.pods, self.replica_sets, self.controller_revisions, self.jobs):
            informer.index("controller", _controller)
        for workloads in (
            self.replica_sets,
            self.deployments,
            self.replication_controllers,
            self.stateful_sets,
            self.daemon_sets,
            self.jobs,
        ):
            workloads.index("namespace", lambda w: (w.namespace,))
        for informer in self:
            informer.index("owner", _owners)

    def _typed(self, kind: Kind, view: Any, project: Any = None) -> Informer[Any]:
        informer: Informer[Any] = Informer(self._session, kind, view, project=project)
        self.of[kind.group, kind.plural] = informer
        return informer

    def on_kind(self, told: Callable[[Kind], None]) -> None:
        """`told` is called with each kind that is cached from then on: those that definitions define."""
        self._told.append(told)

    def add(self, kind: Kind) -> Informer[Any]:
        """Cache a custom kind; the informer is the caller's to run."""
        informer: Informer[Any] = Informer(self._session, kind, Object, project=bare)
        informer.index("owner", _owners)
        self.of[kind.group, kind.plural] = informer
        self.custom[kind.group, kind.kind] = kind
        for told in self._told:
            told(kind)
        return informer

    def drop(self, kind: Kind) -> None:
        del self.of[kind.group, kind.plural], self.custom[kind.group, kind.kind]

    def kind_named(self, api_version: str, kind: str) -> Kind | None:
        """The kind of an owner reference, built in or custom; a custom one in whichever version is cached."""
        return registry.by_kind(api_version, kind) or self.custom.get((api_version.partition("/")[0], kind))

    def __iter__(self) -> Iterator[Informer[Any]]:
        return iter(self.of.values())

    def for_kind(self, kind: Kind) -> Informer[Any] | None:
        return self.of.get((kind.group, kind.plural))

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if old is not None and new is not None and old.spec.selector == new.spec.selector:
            return
        if old is not None:
            self.selectors.remove(old.key, old.spec.selector or {})
        if new is not None:
            self.selectors.add(new.key, new.spec.selector or {})

    def pods_of(self, service: Service) -> list[Pod]:
        """The pods a Service selects, in the order of their names; none when it has no selector."""
        selector = service.spec.selector or {}
        if not selector:
            return []
        wanted = selector.items()
        entries = [(service.namespace, key, value) for key, value in wanted]
        rarest = min(entries, key=lambda entry: self.pods.count("label", entry))
        found: list[Pod] = self.pods.by_index("label", rarest)
        return sorted((p for p in found if wanted <= p.metadata.labels.items()), key=lambda p: p.name)

    def nodes_of(self, pods: Iterable[Pod]) -> dict[str, Node]:
        """The known nodes that `pods` are on, by name."""
        names = {pod.spec.node_name for pod in pods}
        return {name: node for name in names if (node := self.nodes.get("", name)) is not None}

    def controlled_or_orphans(self, informer: Informer[Any], owner: Object) -> list[Any]:
        """What `owner` controls and what in its namespace nobody does: the candidates of a claim."""
        orphans = informer.by_index("controller", ("orphan", owner.namespace))
        return [*informer.by_index("controller", owner.metadata.uid), *orphans]
