"""An informer: a local, always-current copy of one kind, and a call for each change.

List once, watch from there, list again when the watch can't go on (410 Gone, connection lost). One informer per kind
and selection in a process. Readers look at `items`; nothing should act before `synced`.

    list ──► items ──► watch ──event──► items, handlers ──► …
      ▲                  │
      └── back-off ◄─────┘ Expired, Unreachable

Handlers run inside the informer's task, so they must be quick: put a key on a work queue, update an index.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import msgspec

from kubesvc.api.errors import ApiError, Expired
from kubesvc.api.meta import Object
from kubesvc.api.registry import Kind
from kubesvc.client.session import Session, Unreachable, collector_paused

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)
Key = tuple[str, str]
Handler = Callable[[T | None, T | None], None]  # (old, new): None, x is an addition; x, None a deletion


class Informer(Generic[T]):
    """A copy of `kind` decoded as `view`, kept current by `run`.

    `items` maps (namespace, name) -> object. `project`, where given, replaces each object by a slimmer one.
    `revision` is the newest this copy includes; `until` waits for a change, as a writer does for its own.
    """

    def __init__(
        self,
        session: Session,
        kind: Kind,
        view: type[T],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        project: Callable[[T], T] | None = None,
    ) -> None:
        self.kind = kind
        self.items: dict[Key, T] = {}
        self.synced = asyncio.Event()
        self.revision = 0
        self._session = session
        self._view = view
        self._decoder = msgspec.json.Decoder(view)
        self._namespace, self._labels, self._fields = namespace, labels, fields
        self._project = project
        self._handlers: list[Handler[T]] = []
        self._on_sync: list[Callable[[], None]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._indexers: dict[str, Callable[[T], Iterable[Hashable]]] = {}
        self._indexes: dict[str, dict[Hashable, dict[Key, T]]] = {}

    def get(self, namespace: str, name: str) -> T | None:
        return self.items.get((namespace, name))

    def on_change(self, handler: Handler[T]) -> None:
        """Call `handler(old, new)` for every change, and (None, x) for everything already here."""
        self._handlers.append(handler)
        for item in list(self.items.values()):
            handler(None, item)

    def on_sync(self, handler: Callable[[], None]) -> None:
        """Call `handler` after each full list has been delivered: the caches are whole."""
        self._on_sync.append(handler)

    def index(self, name: str, keys: Callable[[T], Iterable[Hashable]]) -> None:
        """Keep an index: `keys(object)` -> the entries it is found under with `by_index`. Before `run`."""
        self._indexers[name] = keys
        self._indexes[name] = defaultdict(dict)

    def by_index(self, name: str, key: Hashable) -> list[T]:
        return list(self._indexes[name].get(key, {}).values())

    def count(self, name: str, key: Hashable) -> int:
        """How many objects `by_index` would give."""
        return len(self._indexes[name].get(key, ()))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds()`, which is asked now and after each change."""
        while not holds():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def run(self) -> None:
        """Follow the API until cancelled. Never raises for a server that is away: it backs off and tries again."""
        delay = 0.05
        while True:
            try:
                since = await self._list()
                delay = 0.05
                await self._follow(since)
            except Expired:
                continue
            except (Unreachable, ApiError, msgspec.DecodeError) as error:
                log.warning("%s: %s; trying again in %.2f s", self.kind.resource, error, delay)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, 5.0)

    async def _list(self) -> str:
        found = await self._session.list_raw(
            self.kind, namespace=self._namespace, labels=self._labels, fields=self._fields
        )
        with collector_paused():  # one whole object at a time: only what the projection keeps of it adds up
            slim = (self._slim(self._decoder.decode(raw)) for raw in found.items)
            current = {item.key: item for item in slim}
        for key in [k for k in self.items if k not in current]:
            self._set(key, None)
        for key, item in current.items():
            before = self.items.get(key)
            if before is None or before.metadata.resource_version != item.metadata.resource_version:
                self._set(key, item)
        self.synced.set()
        self._reached(found.metadata.resource_version)
        for handler in self._on_sync:
            handler()
        return found.metadata.resource_version

    async def _follow(self, since: str) -> None:
        """Watch from `since`; when the server ends a watch in order, go on from the last revision seen."""
        while True:
            events = self._session.watch(
                self.kind, since=since, namespace=self._namespace, labels=self._labels, fields=self._fields
            )
            async for event in events:
                item = self._decoder.decode(event.object)
                since = item.metadata.resource_version
                if event.type in ("ADDED", "MODIFIED"):
                    self._set(item.key, self._slim(item))
                elif event.type == "DELETED":
                    self._set(item.key, None)
                self._reached(since)

    def _reached(self, resource_version: str) -> None:
        self.revision = max(self.revision, int(resource_version or 0))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _slim(self, item: T) -> T:
        return self._project(item) if self._project else item

    def _set(self, key: Key, item: T | None) -> None:
        old = self.items.pop(key, None)
        if item is None and old is None:
            return
        if item is not None:
            self.items[key] = item
        for name, keys in self._indexers.items():
            index = self._indexes[name]
            for entry in () if old is None else keys(old):
                index[entry].pop(key, None)
                if not index[entry]:
                    del index[entry]
            if item is not None:
                for entry in keys(item):
                    index[entry][key] = item
        for handler in self._handlers:
            try:
                handler(old, item)
            except Exception:
                log.exception("%s %s: a handler failed", self.kind.resource, key)


async def wait_synced(informers: Iterable[Informer[T]]) -> None:
    """Wait until each has its first full list."""
    for informer in informers:
        await informer.synced.wait()
