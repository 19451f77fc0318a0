"""The endpoints of a few Services: those with policy Local, for which the election must know the nodes.

A cluster's slices are many and such Services few, so each gets an informer of its own, selected by its label.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import SERVICE_NAME
from kubesvc.api.registry import ENDPOINT_SLICE
from kubesvc.client.informer import Informer, Key
from kubesvc.client.session import Session
from kubesvc.loadbalancer.announce.election import hosts


class EndpointHosts:
    """Follows the slices of some Services; `changed` is called when any of them does."""

    def __init__(self, session: Session, group: asyncio.TaskGroup, changed: Callable[[], None]) -> None:
        self._session, self._group, self._changed = session, group, changed
        self._followed: dict[Key, tuple[Informer[EndpointSlice], asyncio.Task[None]]] = {}  # service -> its slices

    def follow(self, services: Set[Key]) -> None:
        """Follow these and no others."""
        for key in self._followed.keys() - services:
            self._followed.pop(key)[1].cancel()
        for key in services - self._followed.keys():
            namespace, name = key
            slices = Informer(
                self._session,
                ENDPOINT_SLICE,
                EndpointSlice,
                namespace=namespace,
                labels=f"{SERVICE_NAME}={name}",
            )
            slices.on_change(lambda _old, _new: self._changed())
            slices.on_sync(self._changed)
            self._followed[key] = (slices, self._group.create_task(slices.run()))

    def of(self, service: Key, version: int) -> frozenset[str] | None:
        """The nodes that can serve it in this IP family; None when that isn't known yet."""
        found = self._followed.get(service)
        if found is None or not found[0].synced.is_set():
            return None
        return hosts(
            [e for s in found[0].items.values() if s.address_type == f"IPv{version}" for e in s.endpoints],
        )
