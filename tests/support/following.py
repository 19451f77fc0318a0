"""Waiting for the API to show something: a condition on objects, with a deadline instead of a sleep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from kubesvc.api.meta import Object
from kubesvc.api.registry import Kind
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session

DEADLINE = 5.0  # seconds

T = TypeVar("T", bound=Object)


class Following(Generic[T]):
    """The current objects of a kind, and every version of them that was seen."""

    def __init__(self, informer: Informer[T]) -> None:
        self._informer = informer
        self._changed = asyncio.Event()
        self.seen: list[T] = []
        informer.on_change(self._note)

    def _note(self, _old: T | None, new: T | None) -> None:
        if new is not None:
            self.seen.append(new)
        self._changed.set()

    def get(self, name: str, namespace: str = "default") -> T | None:
        return self._informer.get(namespace, name)

    async def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until `holds()`; fails after the deadline with `what` was awaited and what there is."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: still not so; there is {list(self._informer.items.values())}") from None


@asynccontextmanager
async def following(session: Session, kind: Kind, view: type[T]) -> AsyncIterator[Following[T]]:
    informer = Informer(session, kind, view)
    followed = Following(informer)
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), DEADLINE)
        yield followed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
