"""Watching the API from a test: copies of some kinds, kept by informers, and waits for them to show something.

Nothing here looks twice without a reason: a wait asks again whenever an object has changed, until its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from kubesvc.api.core import ObjectReference
from kubesvc.api.meta import Object
from kubesvc.api.registry import Kind
from kubesvc.client.informer import Informer, wait_synced
from kubesvc.client.session import Session

DEADLINE = 60.0
"""Seconds a story may wait for one thing."""

F = TypeVar("F")
T = TypeVar("T", bound=Object)


class Event(Object, frozen=True):
    involved_object: ObjectReference = ObjectReference()
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int = 0


class Changes:
    """Wakes who waits for something about the objects of some informers."""

    def __init__(self, *informers: Informer[Any]) -> None:
        self._informers = informers
        self._changed = asyncio.Event()
        for informer in informers:
            informer.on_change(lambda old, new: self._changed.set())

    async def until(self, look: Callable[[], F], what: str, *, within: float = DEADLINE) -> F:
        """What `look` gives once it gives something true; fails after the deadline, saying `what` never came to be."""
        try:
            async with asyncio.timeout(within):
                while not (found := look()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            shown = {i.kind.kind: list(i.items.values()) for i in self._informers}
            raise AssertionError(f"never came to be: {what}; there are {shown}") from None
        return found


class Following(Generic[T]):
    """The current objects of one kind, and every version of them that was seen."""

    def __init__(self, informer: Informer[T]) -> None:
        self._informer = informer
        self.seen: list[T] = []
        informer.on_change(lambda old, new: self.seen.append(new) if new is not None else None)
        self.until = Changes(informer).until

    def get(self, name: str, namespace: str = "default") -> T | None:
        return self._informer.get(namespace, name)


@asynccontextmanager
async def following(session: Session, kind: Kind, view: type[T]) -> AsyncIterator[Following[T]]:
    """A kind seen as `view`, synced."""
    informer = Informer(session, kind, view)
    followed = Following(informer)
    async with running(informer.run()):
        await wait_synced([informer])
        yield followed


class Watcher:
    """The current objects of several kinds."""

    def __init__(self, session: Session, *kinds: Kind) -> None:
        self.of: dict[str, Informer[Any]] = {k.kind: Informer(session, k, k.view) for k in kinds}
        self.until = Changes(*self.of.values()).until

    def all(self, kind: Kind, namespace: str = "default") -> list[Any]:
        """Objects of one namespace by name."""
        return sorted((o for o in self.of[kind.kind].items.values() if o.namespace == namespace), key=_name)

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Any:
        return self.of[kind.kind].items.get((namespace if kind.namespaced else "", name))


def _name(item: Object) -> str:
    return item.name


@asynccontextmanager
async def watching(session: Session, *kinds: Kind) -> AsyncIterator[Watcher]:
    """A Watcher of `kinds`, synced."""
    watcher = Watcher(session, *kinds)
    async with running(*(i.run() for i in watcher.of.values())):
        await wait_synced(watcher.of.values())
        yield watcher


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    """`coroutines` as tasks while the block runs; one that ends by itself fails the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(c) for c in coroutines]
        yield
        for task in tasks:
            assert not task.done() or task.cancelled(), f"{task} ended by itself"
            task.cancel()
