"""The pods of one kind of owner: adopted and released, created in batches, deleted; each with its event.

What every workload controller does with pods, once. Which pods, and when, is each controller's plan.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON, Object
from kubesvc.api.pods import Pod
from kubesvc.api.registry import POD, Kind
from kubesvc.api.selectors import Selector, matches
from kubesvc.client.informer import Informer
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.ownership import adoption, claim, controller_of, without_owners
from kubesvc.controllers.writer import namespace_is_ending, together

W = TypeVar("W", bound=Object)
Key = tuple[str, str]


class PodControl(Generic[W]):
    """`queue` gets the key of an owner when it, or a pod of its, has changed. `selector` tells an owner's pods, which
    `finalizer` holds."""

    def __init__(
        self,
        context: Context,
        kind: Kind,
        component: str,
        owners: Informer[W],
        selector: Callable[[W], Selector],
        finalizer: str = "",
    ) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(kind.kind.lower())
        self._context, self._kind, self._component = context, kind, component
        self._owners, self._selector, self._finalizer = owners, selector, finalizer
        self._pods: Informer[Pod] = context.caches.pods
        owners.on_change(lambda old, new: self.queue.add(new.key) if new is not None else None)
        self._pods.on_change(self._pod_changed)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            controller = controller_of(pod)
            if controller is not None and controller.kind == self._kind.kind:
                self.queue.add((pod.namespace, controller.name))
            elif controller is None:
                for owner in self._owners.by_index("namespace", pod.namespace):
                    if matches(self._selector(owner), pod.metadata.labels):
                        self.queue.add(owner.key)

    def owned(self, owner: Object) -> list[Pod]:
        """The pods `owner` controls now."""
        found: list[Pod] = self._pods.by_index("controller", owner.metadata.uid)
        return found

    async def claim(self, owner: W, fits: Callable[[Pod], bool] = lambda pod: True) -> list[Pod]:
        """The owner's pods, after adopting those that nobody controls and releasing what no longer matches. `fits`
        says more than the selector of which orphans may be adopted."""
        candidates = [
            p for p in self._context.caches.controlled_or_orphans(self._pods, owner) if controller_of(p) or fits(p)
        ]
        claims = claim(owner, self._selector(owner), candidates)
        if claims.adopt:  # never for one that is gone: ask the server itself
            await self._context.session.get(self._kind, owner.namespace, owner.name)
        for pod in claims.adopt:
            await self._context.writer.patch(POD, pod, adoption(self._kind, owner, pod, self._finalizer))
        for pod in claims.release:
            patch = without_owners(pod, frozenset([owner.metadata.uid]), self._finalizer)
            await self._context.writer.patch(POD, pod, patch)
        return claims.owned

    async def create(self, owner: W, trees: Sequence[JSON]) -> None:
        """In batches of 1, 2, 4, …: a template that the server refuses costs one request, not hundreds."""
        batch = 1
        while trees:
            creations = (self._context.writer.create(POD, tree) for tree in trees[:batch])
            outcomes = await asyncio.gather(*creations, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, dict):
                    self.say(owner, "SuccessfulCreate", f"Created pod: {outcome['metadata']['name']}")
            for outcome in outcomes:
                if isinstance(outcome, ApiError) and not namespace_is_ending(outcome):
                    self.say(owner, "FailedCreate", f"Error creating: {outcome.message}", warning=True)
                if isinstance(outcome, BaseException):
                    raise outcome
            trees = trees[batch:]
            batch *= 2

    async def delete(self, owner: W, pods: Iterable[Pod]) -> None:
        async def one(pod: Pod) -> None:
            await self._context.writer.delete(POD, pod)
            self.say(owner, "SuccessfulDelete", f"Deleted pod: {pod.name}")

        await together(map(one, pods))

    def say(self, owner: W, reason: str, message: str, *, warning: bool = False) -> None:
        type_ = "Warning" if warning else "Normal"
        self._context.recorder.record(self._component, self._kind, owner, type_, reason, message)
