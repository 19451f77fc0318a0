"""What a pod's start needs from the API beside the pod: its ConfigMaps and Secrets, and the Services of its namespace.

Read when a pod starts, not followed: an informer of every Service would cost each node the memory of all of them. Pods
that start together share an answer, if it is newer than they are: a Service made before a pod is in its variables.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from kubesvc.api import registry
from kubesvc.api.core import ConfigMap, Secret, Service
from kubesvc.api.errors import NotFound
from kubesvc.api.meta import Object
from kubesvc.api.pods import Pod
from kubesvc.api.registry import Kind
from kubesvc.api.storage import PersistentVolume, PersistentVolumeClaim
from kubesvc.client.session import Session
from kubesvc.node import claims, environment
from kubesvc.node.environment import Sources

T = TypeVar("T", bound=Object)
Answer = tuple[int, list[Service]]  # the revision it was true at


class Reader:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._services: dict[str, asyncio.Task[Answer]] = {}  # namespace -> the answer on its way

    async def sources(self, pod: Pod) -> Sources:
        """The ConfigMaps and Secrets the pod refers to that exist."""
        maps, secrets = environment.referenced(pod)
        found_maps, found_secrets = await asyncio.gather(
            self._read_all(registry.CONFIG_MAP, ConfigMap, pod.namespace, maps),
            self._read_all(registry.SECRET, Secret, pod.namespace, secrets),
        )
        return Sources(found_maps, found_secrets, await self._claims(pod))

    async def _claims(self, pod: Pod) -> dict[str, str]:
        """A claim -> its directory, "" while it has none. Raises ConfigError."""
        names = claims.names(pod)
        found = await self._read_all(registry.PERSISTENT_VOLUME_CLAIM, PersistentVolumeClaim, pod.namespace, names)
        for claim in found.values():
            claims.check_owner(pod, claim)
        wanted = {claim.spec.volume_name for claim in found.values() if claim.spec.volume_name}
        volumes = await self._read_all(registry.PERSISTENT_VOLUME, PersistentVolume, "", wanted)
        return {name: claims.path(claim, volumes.get(claim.spec.volume_name)) for name, claim in found.items()}

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """A Secret, or None. Raises ApiError, Unreachable."""
        return (await self._read_all(registry.SECRET, Secret, namespace, {name})).get(name)

    async def services(self, pod: Pod) -> list[Service]:
        """The Services whose variables the pod gets: those of its namespace if enableServiceLinks, and the API's."""
        namespaces = ["default", *([pod.namespace] if pod.spec.enable_service_links else [])]
        found: dict[str, Service] = {}
        for namespace in dict.fromkeys(namespaces):
            for service in await self._list(namespace, int(pod.metadata.resource_version or 0)):
                if namespace == pod.namespace and pod.spec.enable_service_links:
                    found[service.name] = service
                elif service.name == "kubernetes":
                    found.setdefault(service.name, service)
        return list(found.values())

    async def _list(self, namespace: str, revision: int) -> list[Service]:
        """The namespace's Services, not older than `revision`."""
        while True:
            task = self._services.get(namespace)
            if task is None or task.done():  # done, and its callbacks still to come: waiting for it again never ends
                # Pods of other namespaces need default/kubernetes alone, so the list is small where it matters.
                task = asyncio.get_running_loop().create_task(self._list_now(namespace))
                self._services[namespace] = task
                task.add_done_callback(lambda done: self._expire(namespace, done))
            known, services = await asyncio.shield(task)
            if known >= revision:
                return services

    def _expire(self, namespace: str, task: asyncio.Task[Answer]) -> None:
        """Who waited has the answer; who comes later asks anew."""
        if self._services.get(namespace) is task:
            del self._services[namespace]

    async def _list_now(self, namespace: str) -> Answer:
        found = await self._session.list(registry.SERVICE, Service, namespace=namespace)
        return int(found.metadata.resource_version or 0), found.items

    async def _read_all(self, kind: Kind, view: type[T], namespace: str, names: set[str]) -> dict[str, T]:
        async def read(name: str) -> T | None:
            try:
                return await self._session.read(kind, view, namespace, name)
            except NotFound:
                return None

        ordered = sorted(names)
        found = await asyncio.gather(*(read(name) for name in ordered))
        return {name: item for name, item in zip(ordered, found, strict=True) if item is not None}
