"""The ConfigMaps and Secrets that running pods have mounted, each watched once, however many pods mount it.

A watch an object, as the kubelet's: a node may see only those its pods refer to. What isn't mounted isn't followed:
a variable is what it was when its container started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from kubesvc.api import registry
from kubesvc.api.core import ConfigMap, Secret
from kubesvc.api.pods import Pod
from kubesvc.api.registry import Kind
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.node import environment
from kubesvc.node.environment import Sources


class _Wanted(NamedTuple):
    plural: str
    namespace: str
    name: str


class _Watch(msgspec.Struct):
    informer: Informer[Any]
    task: asyncio.Task[None]
    changed: dict[str, Callable[[], None]] = {}  # pod uid -> whom to tell


_KINDS: dict[str, tuple[Kind, type[ConfigMap] | type[Secret]]] = {
    "configmaps": (registry.CONFIG_MAP, ConfigMap),
    "secrets": (registry.SECRET, Secret),
}


class Followed:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._watches: dict[_Wanted, _Watch] = {}

    def follow(self, pod: Pod, changed: Callable[[], None]) -> None:
        """Call `changed` whenever something that the pod has mounted is another than before, until `leave`."""
        for wanted in _mounted(pod):
            watch = self._watches.get(wanted) or self._begin(wanted)
            watch.changed[pod.metadata.uid] = changed

    def leave(self, pod: Pod) -> None:
        for wanted in _mounted(pod):
            watch = self._watches.get(wanted)
            if watch is None:
                continue
            watch.changed.pop(pod.metadata.uid, None)
            if not watch.changed:
                watch.task.cancel()
                del self._watches[wanted]

    def sources(self, pod: Pod) -> Sources | None:
        """What the pod has mounted, as far as it exists; None while not all of it has been read."""
        found: dict[str, dict[str, Any]] = {plural: {} for plural in _KINDS}
        for wanted in _mounted(pod):
            watch = self._watches.get(wanted)
            if watch is None or not watch.informer.synced.is_set():
                return None
            item = watch.informer.get(wanted.namespace, wanted.name)
            if item is not None:
                found[wanted.plural][wanted.name] = item
        return Sources(found["configmaps"], found["secrets"])

    def _begin(self, wanted: _Wanted) -> _Watch:
        kind, view = _KINDS[wanted.plural]
        named = f"metadata.name={wanted.name}"
        informer: Informer[Any] = Informer(self._session, kind, view, namespace=wanted.namespace, fields=named)
        task = asyncio.get_running_loop().create_task(informer.run(), name=f"{kind.resource} {wanted.name}")
        watch = self._watches[wanted] = _Watch(informer, task)

        def tell() -> None:
            for changed in list(watch.changed.values()):
                changed()

        informer.on_change(lambda _old, _new: tell())
        return watch

    def close(self) -> None:
        for watch in self._watches.values():
            watch.task.cancel()
        self._watches.clear()


def _mounted(pod: Pod) -> list[_Wanted]:
    maps, secrets = environment.mounted(pod)
    return [
        *(_Wanted("configmaps", pod.namespace, name) for name in sorted(maps)),
        *(_Wanted("secrets", pod.namespace, name) for name in sorted(secrets)),
    ]
