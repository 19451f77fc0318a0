"""Who asks: the pods of this node, by address. What is known of a client is its namespace, hence its search path.

Left out are pods on the node's own network (many share its address), those whose resolver isn't the cluster's, and
those with search domains of their own, which we would pass over.
"""

from __future__ import annotations

import ipaddress

from kubesvc.api.core import Pod, PodDNSConfig, PodSpec, PodStatus
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.registry import POD
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.dns.answers import Answers


def slim_pod(pod: Pod) -> Pod:
    """The fields that say who a client is."""
    searches = pod.spec.dns_config.searches if pod.spec.dns_config is not None else []
    ended = pod.status.phase in ("Succeeded", "Failed")
    return Pod(
        metadata=ObjectMeta(
            name=pod.name,
            namespace=pod.namespace,
            uid=pod.metadata.uid,
            resource_version=pod.metadata.resource_version,
        ),
        spec=PodSpec(
            host_network=pod.spec.host_network,
            dns_policy=pod.spec.dns_policy,
            dns_config=PodDNSConfig(searches=searches) if searches else None,
        ),
        status=PodStatus(pod_ips=[] if ended else pod.status.pod_ips),
    )


def addresses(pod: Pod) -> list[str]:
    return [] if pod.spec.host_network else [one.ip for one in pod.status.pod_ips if one.ip]


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address.partition("%")[0]).packed


def has_our_search_path(pod: Pod) -> bool:
    """Is the pod's search path the one every pod has: NS.svc.ZONE first, then svc.ZONE, ZONE and the host's?"""
    return pod.spec.dns_policy in ("ClusterFirst", "ClusterFirstWithHostNet") and pod.spec.dns_config is None


class Clients:
    """`namespaces` maps a packed source address -> the namespace of `node`'s pod that has it; kept current by `run`."""

    def __init__(self, session: Session, node: str) -> None:
        self.namespaces: dict[bytes, bytes] = {}
        self._owners: dict[bytes, tuple[str, str]] = {}  # address -> (namespace, name): addresses are used again
        self.pods = Informer(session, POD, Pod, fields=f"spec.nodeName={node}", project=slim_pod)
        self.pods.on_change(self._changed)

    async def run(self) -> None:
        await self.pods.run()

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        for address in map(packed, addresses(old) if old is not None else ()):
            if old is not None and self._owners.get(address) == old.key:
                del self._owners[address], self.namespaces[address]
        if new is not None and has_our_search_path(new):
            for address in map(packed, addresses(new)):
                self._owners[address] = new.key
                self.namespaces[address] = new.namespace.encode()


class VerifiedPods:
    """Tells `answers` every pod's addresses, for pod records in mode `verified`."""

    def __init__(self, session: Session, answers: Answers) -> None:
        self.pods = Informer(session, POD, Pod, project=slim_pod)
        self._answers = answers
        self.pods.on_change(self._changed)

    async def run(self) -> None:
        await self.pods.run()

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod, exists in ((new, True), (old, False)):
            for address in addresses(pod) if pod is not None else ():
                self._answers.set_pod(pod.namespace if pod is not None else "", packed(address), exists=exists)
