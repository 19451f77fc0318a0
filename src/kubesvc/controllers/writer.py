"""Writes that return once the shared cache shows them, so a reconciler never acts on a picture older than itself.

This replaces the bookkeeping of expectations that the Kubernetes controllers keep: the answer's resourceVersion is
awaited in the kind's informer. A server that is away holds a key back instead of letting it act blindly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from kubesvc.api.errors import ApiError, Conflict, Forbidden, NotFound
from kubesvc.api.meta import JSON, Object
from kubesvc.api.pods import Pod
from kubesvc.api.registry import POD, Kind
from kubesvc.client.session import MERGE_PATCH, Session
from kubesvc.controllers.caches import Caches


def namespace_is_ending(error: BaseException) -> bool:
    """Whether a creation was refused because its namespace is going or gone: then it needn't be."""
    details = (error.details or {}) if isinstance(error, ApiError) else {}
    if isinstance(error, NotFound):
        return details.get("kind") == "namespaces"
    return isinstance(error, Forbidden) and any(
        cause.get("reason") == "NamespaceTerminating" for cause in details.get("causes") or []
    )


async def together(writes: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Carry out all `writes` at once and give their answers; when all are done, raise the first failure, if any."""
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


class Writer:
    """create, patch and delete as the session does them, then the wait."""

    def __init__(self, session: Session, caches: Caches) -> None:
        self._session = session
        self._caches = caches

    async def create(self, kind: Kind, tree: JSON) -> JSON:
        """Raises what Session.create does."""
        return await self._seen(kind, await self._session.create(kind, tree))

    async def patch(
        self,
        kind: Kind,
        item: Object,
        patch: JSON | Sequence[JSON],
        *,
        subresource: str = "",
        patch_type: str = MERGE_PATCH,
    ) -> JSON:
        """Raises what Session.patch does, but Conflict for an object that is gone: either way, read again."""
        try:
            changed = await self._session.patch(
                kind, item.namespace, item.name, patch, subresource=subresource, patch_type=patch_type
            )
        except NotFound as error:
            raise Conflict(error.message) from error
        return await self._seen(kind, changed)

    async def bind(self, pod: Pod, binding: JSON) -> None:
        """POST to the pod's binding subresource. Raises Conflict when it has a node, NotFound when it is gone."""
        path = POD.path(pod.namespace, pod.name, "binding")
        await self._session.raw("POST", path, body=msgspec.json.encode(binding))

        def bound() -> bool:
            now = self._caches.pods.items.get(pod.key)
            return now is None or now.metadata.uid != pod.metadata.uid or bool(now.spec.node_name)

        await self._caches.pods.until(bound)

    async def delete(
        self, kind: Kind, item: Object, *, propagation: str = "", grace_seconds: int | None = None
    ) -> None:
        """Delete this very object, not another of its name; one already gone is fine."""
        uid = item.metadata.uid
        try:
            await self._session.delete(
                kind, item.namespace, item.name, uid=uid, propagation=propagation, grace_seconds=grace_seconds
            )
        except NotFound:
            pass
        informer = self._caches.for_kind(kind)
        if informer is None:
            return

        def going() -> bool:
            now = informer.items.get(item.key)
            return now is None or now.metadata.uid != uid or now.metadata.deletion_timestamp is not None

        await informer.until(going)

    async def _seen(self, kind: Kind, answer: JSON) -> JSON:
        informer = self._caches.for_kind(kind)
        if informer is not None:
            revision = int(answer["metadata"].get("resourceVersion") or 0)
            await informer.until(lambda: informer.revision >= revision)
        return answer
