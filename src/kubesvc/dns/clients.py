"""Who asks: pods, by address. What is known of a client is its namespace, hence its search path.

Left out are pods on the node's own network (many share its address), those whose resolver isn't the cluster's, and
those with search domains of their own, which we would pass over.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from kubesvc.api.errors import ApiError
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.pods import Pod, PodDNSConfig, PodSpec, PodStatus
from kubesvc.api.registry import POD
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session, Unreachable
from kubesvc.dns.answers import Answers

log = logging.getLogger(__name__)

REMEMBER_SECONDS = 60.0  # what is known of another node's pod, or that nothing is
MOST_REMEMBERED = 4096  # addresses
MOST_LOOKED_UP = 16  # at a time


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


class Namespaces(Protocol):
    """A packed source address -> the namespace of the pod that has it, where its search path is to be completed."""

    def get(self, address: bytes, default: bytes, /) -> bytes: ...


class Clients:
    """The pods of `node`, in `namespaces` by packed address: kept current by `run`.

    Other nodes' pods come here only while their own server is away, so they aren't watched: the first question of one
    (whose address is in `networks`) looks it up, the next ones are completed. An address that has passed to another
    pod since costs that pod the completion for a while, never a wrong answer: the name asked says its namespace too.
    """

    def __init__(
        self,
        session: Session,
        node: str,
        *,
        networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.namespaces: dict[bytes, bytes] = {}
        self._owners: dict[bytes, tuple[str, str]] = {}  # address -> (namespace, name): addresses are used again
        self.pods = Informer(session, POD, Pod, fields=f"spec.nodeName={node}", project=slim_pod)
        self.pods.on_change(self._changed)
        self._session, self._networks, self._clock = session, networks, clock
        self._elsewhere: dict[bytes, tuple[bytes, float]] = {}  # address -> its namespace ("": none), until when
        self._looking: dict[bytes, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            await self.pods.run()
        finally:
            for task in self._looking.values():
                task.cancel()

    def get(self, address: bytes, default: bytes = b"", /) -> bytes:
        """The namespace of the pod with a packed address, `default` while it isn't known."""
        found = self.namespaces.get(address)
        if found is not None:
            return found
        namespace, until = self._elsewhere.get(address, (default, 0.0))
        if until < self._clock() and address not in self._looking and len(self._looking) < MOST_LOOKED_UP:
            if any(ipaddress.ip_address(address) in network for network in self._networks):
                self._looking[address] = asyncio.get_running_loop().create_task(self._look_up(address))
            else:
                self._remember(address, b"")
        return namespace or default

    def _remember(self, address: bytes, namespace: bytes) -> None:
        self._elsewhere.pop(address, None)
        if len(self._elsewhere) >= MOST_REMEMBERED:
            del self._elsewhere[next(iter(self._elsewhere))]
        self._elsewhere[address] = namespace, self._clock() + REMEMBER_SECONDS

    async def _look_up(self, address: bytes) -> None:
        namespace = b""
        try:
            found = await self._session.list(POD, Pod, fields=f"status.podIP={ipaddress.ip_address(address)}")
            pods = [pod for pod in map(slim_pod, found.items) if addresses(pod) and has_our_search_path(pod)]
            namespace = pods[0].namespace.encode() if len(pods) == 1 else b""
        except (ApiError, Unreachable) as error:
            log.debug("who has %s isn't known: %s", ipaddress.ip_address(address), error)
        finally:
            self._remember(address, namespace)
            del self._looking[address]

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
