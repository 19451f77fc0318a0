"""Watches who belongs to whom, over every cached kind, and deletes what is left behind.

An object comes up when an owner of it goes, when it names an owner that isn't known, and while it is being deleted with
dependents. Before anything is deleted for want of an owner the server itself is asked: the caches of two kinds may be
at different revisions.
"""

from __future__ import annotations

from typing import NamedTuple

from kubesvc.api.errors import NotFound
from kubesvc.api.meta import Object, OwnerReference
from kubesvc.api.registry import Kind
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.garbage.plan import FOREGROUND, ORPHAN, Owner, plan, state_of
from kubesvc.controllers.ownership import without_owners


class Item(NamedTuple):
    """Where an object is: (group, plural, namespace, name)."""

    group: str
    plural: str
    namespace: str
    name: str


class GarbageController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.queue: WorkQueue[Item] = WorkQueue("garbage")
        for informer in self._caches:
            self._follow(informer.kind)
        self._caches.on_kind(self._follow)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=self._context.config.workers)

    def _follow(self, kind: Kind) -> None:
        informer = self._caches.for_kind(kind)
        assert informer is not None

        def changed(old: Object | None, new: Object | None) -> None:
            if new is None or (old is not None and old.metadata.uid != new.metadata.uid):
                assert old is not None
                self._bereave(old)
            if new is None:
                return
            if new.metadata.deletion_timestamp is not None:
                if FOREGROUND in new.metadata.finalizers or ORPHAN in new.metadata.finalizers:
                    self.queue.add(_item(kind, new))
            elif new.metadata.owner_references and (
                old is None or old.metadata.owner_references != new.metadata.owner_references
            ):
                self.queue.add(_item(kind, new))

        informer.on_change(changed)

    def _bereave(self, gone: Object) -> None:
        """Its dependents lost an owner; an owner of its own may have waited for it."""
        for kind, dependent in self._dependents(gone.metadata.uid):
            self.queue.add(_item(kind, dependent))
        for reference in gone.metadata.owner_references:
            kind_of_owner = self._caches.kind_named(reference.api_version, reference.kind)
            if kind_of_owner is not None:
                namespace = gone.namespace if kind_of_owner.namespaced else ""
                self.queue.add(Item(kind_of_owner.group, kind_of_owner.plural, namespace, reference.name))

    def _dependents(self, uid: str) -> list[tuple[Kind, Object]]:
        return [(i.kind, item) for i in self._caches for item in i.by_index("owner", uid)]

    async def reconcile(self, key: Item) -> None:
        informer = self._caches.of.get((key.group, key.plural))
        item: Object | None = informer.get(key.namespace, key.name) if informer else None
        if informer is None or item is None:
            return
        kind = informer.kind
        owners: dict[str, Owner] = {}
        for reference in item.metadata.owner_references:
            state = await self._state(item, reference)
            if state is None:
                return  # an owner of a kind not served here: not ours to judge
            owners[reference.uid] = state
        dependents = self._dependents(item.metadata.uid)
        decided = plan(item, owners, [d for _, d in dependents])
        uid = frozenset([item.metadata.uid])
        for its_kind, dependent in dependents:
            if dependent in decided.release:
                await self._context.writer.patch(its_kind, dependent, without_owners(dependent, uid))
            if dependent in decided.pursue:
                self.queue.add(_item(its_kind, dependent))
        if decided.release:
            self.queue.add(key)
        if decided.patch is not None:
            await self._context.writer.patch(kind, item, decided.patch)
        if decided.delete:
            await self._context.writer.delete(kind, item, propagation=decided.delete)

    async def _state(self, item: Object, reference: OwnerReference) -> Owner | None:
        kind = self._caches.kind_named(reference.api_version, reference.kind)
        if kind is None:
            return None
        namespace = item.namespace if kind.namespaced else ""
        informer = self._caches.for_kind(kind)
        known: Object | None = informer.get(namespace, reference.name) if informer else None
        state = state_of(known, reference.uid)
        if state is not Owner.ABSENT:
            return state
        try:
            found = await self._context.session.read(kind, Object, namespace, reference.name)
        except NotFound:
            return Owner.ABSENT
        return state_of(found, reference.uid)


def _item(kind: Kind, item: Object) -> Item:
    return Item(kind.group, kind.plural, item.namespace, item.name)
