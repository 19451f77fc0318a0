"""What a box adds to the API beyond what its server makes: the kube-dns Service, and only the nodes it has.

Each node's DNS server puts itself behind `kube-dns` with a slice of its own; PreferSameNode sends a pod to the server
of its own node, and to another's while that one restarts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kubesvc.api.errors import AlreadyExists, NotFound
from kubesvc.api.meta import JSON, Object
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.registry import NODE, POD, SERVICE, STORAGE_CLASS, Kind
from kubesvc.box.definition import DNS_PORT, Box
from kubesvc.client.session import Session
from kubesvc.controllers.persistentvolume.plan import storage_class

log = logging.getLogger(__name__)


def kube_dns(box: Box) -> JSON:
    """The Service kube-system/kube-dns at its well-known address, without a selector."""
    labels = {
        "k8s-app": "kube-dns",
        "kubernetes.io/name": "kubesvc-dns",  # what `kubectl cluster-info` says is running
        "kubernetes.io/cluster-service": "true",
    }
    ports = [
        {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": DNS_PORT},
        {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": DNS_PORT},
    ]
    return {
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {"clusterIP": str(box.dns_ip), "trafficDistribution": "PreferSameNode", "ports": ports},
    }


async def ensure_addons(session: Session, box: Box) -> None:
    """Make sure of kube-dns and of the class of volumes, and forget nodes the box no longer has, with their pods."""
    try:
        await session.create(SERVICE, kube_dns(box))
    except AlreadyExists:
        pass
    try:
        await session.create(STORAGE_CLASS, storage_class())
    except AlreadyExists:
        pass
    known = set(box.node_names)
    nodes = await session.list(NODE, Node)
    await forget_nodes(session, [node for node in nodes.items if node.name not in known])


async def forget_nodes(session: Session, gone: Sequence[Node]) -> None:
    """Delete nodes that are no longer part of the box, then the pods that were on them."""
    for node in gone:
        log.info("node %s is no longer part of the box", node.name)
        await _delete(session, NODE, node)
    names = {node.name for node in gone}
    for pod in (await session.list(POD, Pod)).items if gone else ():
        if pod.spec.node_name in names:
            await _delete(session, POD, pod)


async def _delete(session: Session, kind: Kind, item: Object) -> None:
    try:
        await session.delete(kind, item.namespace, item.name, uid=item.metadata.uid, grace_seconds=0)
    except NotFound:
        pass
