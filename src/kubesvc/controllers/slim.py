"""What is kept of each object in the controllers' caches: what some decision reads, and equal texts once.

With 10,000 Services and 30,000 pods, whole objects would be most of the memory of the process. An uid, an address or a
node's name occurs in a pod, its slice and a label; interning makes these one string. Conditions, hints and ports of
endpoints are few distinct values, kept once each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from sys import intern
from typing import TypeVar

import msgspec

from kubesvc.api.apps import ReplicaSet, ReplicaSetSpec, ReplicationController
from kubesvc.api.core import ConfigMap, Endpoints, EndpointSubset, ObjectReference, Service, ServiceSpec
from kubesvc.api.discovery import Endpoint, EndpointSlice
from kubesvc.api.endpoints import pod_is_finished
from kubesvc.api.labels import (
    BALANCE,
    BALANCE_KEY,
    JOB_COMPLETION_INDEX,
    JOB_INDEX_FAILURES,
    JOB_INDEX_IGNORED_FAILURES,
    JOB_TRACKING,
    LAST_CHANGE_TRIGGER_TIME,
    LEADER,
    OVER_CAPACITY,
    WEIGHT,
)
from kubesvc.api.meta import Condition, LabelSelector, Object, ObjectMeta, OwnerReference, Struct
from kubesvc.api.pods import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
    ResourceRequirements,
)

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
READ_OF_PODS = ("Ready", "PodScheduled")  # the conditions
_OF_PODS = (DELETION_COST, WEIGHT, JOB_COMPLETION_INDEX, JOB_INDEX_FAILURES, JOB_INDEX_IGNORED_FAILURES)

S = TypeVar("S", bound=Struct)


@lru_cache(maxsize=4096)
def _value(encoded: bytes, view: type[S]) -> S:
    return msgspec.json.decode(encoded, type=view)


def once(value: S) -> S:
    """A value equal to `value`, the same one for all its equals: for what has few distinct values."""
    kept: S = _value(msgspec.json.encode(value), type(value))
    return kept


def _texts(texts: Mapping[str, str]) -> dict[str, str]:
    return {intern(k): intern(v) for k, v in texts.items()}


def _reference(reference: OwnerReference) -> OwnerReference:
    return OwnerReference(
        api_version=intern(reference.api_version),
        kind=intern(reference.kind),
        name=intern(reference.name),
        uid=intern(reference.uid),
        controller=reference.controller,
        block_owner_deletion=reference.block_owner_deletion,
    )


def _meta(meta: ObjectMeta, annotations: Iterable[str] = (), *, labels: bool = True) -> ObjectMeta:
    return ObjectMeta(
        name=intern(meta.name),
        namespace=intern(meta.namespace),
        uid=intern(meta.uid),
        resource_version=meta.resource_version,
        creation_timestamp=meta.creation_timestamp,
        deletion_timestamp=meta.deletion_timestamp,
        deletion_grace_period_seconds=meta.deletion_grace_period_seconds,
        labels=_texts(meta.labels) if labels else {},
        annotations={k: meta.annotations[k] for k in annotations if k in meta.annotations},
        owner_references=[_reference(r) for r in meta.owner_references],
        finalizers=meta.finalizers,
    )


def slim_pod(pod: Pod) -> Pod:
    spec, status = pod.spec, pod.status
    judged = JOB_TRACKING in pod.metadata.finalizers  # by the Job's failure policy, which may ask for any condition
    sidecars = [
        once(Container(ports=c.ports, restart_policy=c.restart_policy, resources=_requests(c)))
        for c in spec.init_containers
        if c.resources.requests or (c.restart_policy == "Always" and c.ports)
    ]
    conditions = [
        Condition(
            type=intern(c.type),
            status=intern(c.status),
            message=c.message if c.status != "True" else "",
            last_transition_time=c.last_transition_time,
        )
        for c in status.conditions
        if judged or c.type in READ_OF_PODS
    ]
    return Pod(
        metadata=_meta(pod.metadata, _OF_PODS),
        spec=PodSpec(
            containers=[
                once(Container(ports=c.ports, resources=_requests(c)))
                for c in spec.containers
                if c.ports or c.resources.requests
            ],
            init_containers=sidecars,
            node_name=intern(spec.node_name),
            node_selector=spec.node_selector,
            hostname=spec.hostname,
            subdomain=spec.subdomain,
            host_network=spec.host_network,
            tolerations=spec.tolerations,
            affinity=once(spec.affinity) if spec.affinity else None,
            topology_spread_constraints=[once(c) for c in spec.topology_spread_constraints],
            volumes=[once(v) for v in spec.volumes if v.persistent_volume_claim or v.ephemeral],
            scheduling_gates=spec.scheduling_gates,
            scheduler_name=intern(spec.scheduler_name),
        ),
        status=PodStatus(
            phase=intern(status.phase),
            pod_ip=intern(status.pod_ip),
            pod_ips=[PodIP(ip=intern(a.ip)) for a in status.pod_ips],
            conditions=conditions,
            container_statuses=_judged(status.container_statuses) if judged else _told_of_containers(pod),
            init_container_statuses=_judged(status.init_container_statuses) if judged else [],
        ),
    )


def _requests(container: Container) -> ResourceRequirements:
    return ResourceRequirements(requests=container.resources.requests)


def _told_of_containers(pod: Pod) -> list[ContainerStatus]:
    """How often each was restarted; of a finished pod also when each ended."""
    if not pod_is_finished(pod):
        restarted = [s for s in pod.status.container_statuses if s.restart_count]
        return [ContainerStatus(name="", restart_count=s.restart_count) for s in restarted]
    return [
        ContainerStatus(
            name="",
            restart_count=s.restart_count,
            state=ContainerState(terminated=ContainerStateTerminated(finished_at=s.state.terminated.finished_at)),
        )
        for s in pod.status.container_statuses
        if s.state.terminated
    ]


def _judged(statuses: Iterable[ContainerStatus]) -> list[ContainerStatus]:
    """How often each was restarted, and how and when each ended."""
    return [
        ContainerStatus(
            name=intern(s.name),
            restart_count=s.restart_count,
            state=ContainerState(
                terminated=ContainerStateTerminated(
                    exit_code=s.state.terminated.exit_code, finished_at=s.state.terminated.finished_at
                )
                if s.state.terminated
                else None
            ),
        )
        for s in statuses
    ]


def as_replica_set(controller: ReplicationController) -> ReplicaSet:
    """A ReplicationController in the shape of what came after it."""
    spec = controller.spec
    return ReplicaSet(
        metadata=controller.metadata,
        spec=ReplicaSetSpec(
            replicas=spec.replicas,
            min_ready_seconds=spec.min_ready_seconds,
            selector=LabelSelector(match_labels=spec.selector),
            template=spec.template,
        ),
        status=controller.status,
    )


def slim_service(service: Service) -> Service:
    spec = service.spec
    return Service(
        metadata=_meta(service.metadata, (BALANCE, BALANCE_KEY)),
        spec=ServiceSpec(
            type=intern(spec.type),
            selector=_texts(spec.selector) if spec.selector else None,
            ports=[once(msgspec.structs.replace(port, node_port=0)) for port in spec.ports],
            cluster_ip=spec.cluster_ip,
            ip_families=[intern(f) for f in spec.ip_families],
            traffic_distribution=spec.traffic_distribution,
            publish_not_ready_addresses=spec.publish_not_ready_addresses,
        ),
    )


def slim_slice(found: EndpointSlice) -> EndpointSlice:
    kept = [k for k in found.metadata.annotations if k != LAST_CHANGE_TRIGGER_TIME]
    return EndpointSlice(
        metadata=_meta(found.metadata, kept),
        address_type=intern(found.address_type),
        endpoints=[slim_endpoint(e) for e in found.endpoints],
        ports=[once(p) for p in found.ports] if found.ports is not None else None,
    )


def slim_endpoint(endpoint: Endpoint) -> Endpoint:
    target = endpoint.target_ref
    return Endpoint(
        addresses=[intern(a) for a in endpoint.addresses],
        conditions=once(endpoint.conditions),
        hostname=endpoint.hostname,
        node_name=intern(endpoint.node_name) if endpoint.node_name else endpoint.node_name,
        zone=intern(endpoint.zone) if endpoint.zone else endpoint.zone,
        hints=once(endpoint.hints) if endpoint.hints else None,
        target_ref=ObjectReference(
            kind=intern(target.kind),
            namespace=intern(target.namespace),
            name=intern(target.name),
            uid=intern(target.uid),
            api_version=target.api_version,
            resource_version=target.resource_version,
            field_path=target.field_path,
        )
        if target
        else None,
    )


class Shown(Object, frozen=True):
    """An Endpoints object with a digest in place of its subsets: enough to see whether they are right."""

    digest: bytes = b""


def digest(subsets: list[EndpointSubset]) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(subsets), digest_size=16).digest()


def shown(endpoints: Endpoints) -> Shown:
    return Shown(metadata=_meta(endpoints.metadata, (OVER_CAPACITY, LEADER)), digest=digest(endpoints.subsets))


def bare(item: Object) -> Object:
    """Who it is, whom it belongs to, and whether it is going."""
    return Object(metadata=_meta(item.metadata, labels=False))


def without_data(config_map: ConfigMap) -> ConfigMap:
    """Of ConfigMaps only the published CA is compared; the rest is metadata."""
    if config_map.name == "kube-root-ca.crt":
        return config_map
    return ConfigMap(metadata=_meta(config_map.metadata))
