"""Keeps the ControllerRevisions of one kind of owner: one for each template it had, the newest for the one it has."""

from __future__ import annotations

from collections.abc import Collection

from kubesvc.api.apps import ControllerRevision
from kubesvc.api.errors import AlreadyExists
from kubesvc.api.meta import JSON, Object
from kubesvc.api.registry import CONTROLLER_REVISION, Kind
from kubesvc.api.selectors import Selector
from kubesvc.controllers import revisions
from kubesvc.controllers.context import Context
from kubesvc.controllers.ownership import adoption, claim


class History:
    def __init__(self, context: Context, kind: Kind) -> None:
        self._context, self._kind = context, kind

    def of(self, owner: Object) -> list[ControllerRevision]:
        """The owner's revisions, the oldest first."""
        return revisions.in_order(self._context.caches.controller_revisions.by_index("controller", owner.metadata.uid))

    async def _adopt(self, owner: Object, selector: Selector) -> None:
        """Take in what an owner of the same pods left, so that they aren't replaced for nothing."""
        candidates = self._context.caches.controlled_or_orphans(self._context.caches.controller_revisions, owner)
        orphans = claim(owner, selector, candidates).adopt
        if orphans:  # never for one that is gone: ask the server itself
            await self._context.session.get(self._kind, owner.namespace, owner.name)
        for revision in orphans:
            await self._context.writer.patch(CONTROLLER_REVISION, revision, adoption(self._kind, owner, revision))

    async def newest(
        self, owner: Object, selector: Selector, template: JSON, collisions: int
    ) -> ControllerRevision | None:
        """The revision of the owner's template: made if there is none, put on top if it is an older one's.

        None when its name is taken by another template: the caller counts one more collision.
        """
        await self._adopt(owner, selector)
        known = self.of(owner)
        found = revisions.with_template(template, known)
        if found is None:
            number = revisions.next_number(known)
            tree = revisions.revision_tree(self._kind, owner, template, number, collisions)
            try:
                await self._context.writer.create(CONTROLLER_REVISION, tree)
            except AlreadyExists:
                return None
        elif found is not known[-1]:  # an older template put back
            patch = {"revision": revisions.next_number(known)}
            await self._context.writer.patch(CONTROLLER_REVISION, found, patch)
        return revisions.with_template(template, self.of(owner))

    async def prune(self, owner: Object, in_use: Collection[str], limit: int) -> None:
        """Delete what is beyond the limit; those named in `in_use` stay."""
        for revision in revisions.surplus(self.of(owner), in_use, limit):
            await self._context.writer.delete(CONTROLLER_REVISION, revision)
