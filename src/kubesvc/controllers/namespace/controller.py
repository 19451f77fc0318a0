"""Furnishes new namespaces, and empties and finalizes deleted ones.

What is left in a namespace being deleted is asked of the server, not of the caches: letting it go is final. It is asked
again each time something in it is gone.
"""

from __future__ import annotations

from kubesvc.api import registry
from kubesvc.api.core import ConfigMap, Namespace
from kubesvc.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from kubesvc.api.meta import JSON, Object
from kubesvc.api.registry import CONFIG_MAP, NAMESPACE, SERVICE_ACCOUNT, Kind
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.namespace.plan import CA_NAME, Plan, plan
from kubesvc.controllers.writer import namespace_is_ending, together

SETTLING = 0.02
"""Seconds between two looks at what is left: a thousand pods going one by one are not a thousand looks."""

CONTENTS = tuple(k for k in registry.stored() if k.namespaced)


class NamespaceController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._caches = context.caches
        self.queue: WorkQueue[str] = WorkQueue("namespace")
        self._caches.namespaces.on_change(self._namespace_changed)
        for kind in CONTENTS:
            informer = self._caches.for_kind(kind)
            if informer is not None:
                informer.on_change(self._content_changed)
        self._caches.on_kind(self._kind_added)

    async def run(self) -> None:
        await self.queue.run(self.reconcile, workers=4)

    def _kind_added(self, kind: Kind) -> None:
        informer = self._caches.for_kind(kind)
        if kind.namespaced and informer is not None:
            informer.on_change(self._content_changed)

    def _contents(self) -> list[Kind]:
        """Whatever may be in a namespace."""
        return [*CONTENTS, *(kind for kind in self._caches.custom.values() if kind.namespaced)]

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None:
            self.queue.add(new.name)

    def _content_changed(self, old: Object | None, new: Object | None) -> None:
        """Something is gone that a namespace waits for, or that it should have; or its CA was changed."""
        if old is None:
            return
        known: Namespace | None = self._caches.namespaces.get("", old.namespace)
        if known is None:
            return
        if known.metadata.deletion_timestamp is not None:
            if new is None:
                self.queue.add_after(known.name, SETTLING)
        elif old.name == CA_NAME or (new is None and old.name == "default"):
            self.queue.add(known.name)

    async def reconcile(self, name: str) -> None:
        namespace: Namespace | None = self._caches.namespaces.get("", name)
        if namespace is None:
            return
        accounts = self._caches.for_kind(SERVICE_ACCOUNT)
        has_account = accounts is not None and (name, "default") in accounts.items
        ca: ConfigMap | None = self._caches.config_maps.get(name, CA_NAME)
        decided = plan(namespace, has_account, ca, self._context.config.ca_pem, None)
        if decided.empty:
            await self._empty(name)
            decided = plan(namespace, has_account, ca, self._context.config.ca_pem, await self._remaining(name))
        if decided.finalize is not None:
            await self._finalize(decided.finalize)
        await self._furnish(decided, ca)

    async def _furnish(self, decided: Plan, ca: ConfigMap | None) -> None:
        writes = []
        if decided.account is not None:
            writes.append(self._ensure(SERVICE_ACCOUNT, decided.account))
        if decided.ca is not None and ca is not None:
            writes.append(self._context.writer.patch(CONFIG_MAP, ca, {"data": decided.ca["data"]}))
        elif decided.ca is not None:
            writes.append(self._ensure(CONFIG_MAP, decided.ca))
        await together(writes)

    async def _ensure(self, kind: Kind, tree: JSON) -> JSON:
        try:
            return await self._context.writer.create(kind, tree)
        except ApiError as error:
            if isinstance(error, AlreadyExists) or namespace_is_ending(error):
                return tree
            raise

    async def _empty(self, name: str) -> None:
        """Everything at once; each object with its own grace period and finalizers."""
        await together(self._context.session.delete_collection(kind, name) for kind in self._contents())

    async def _remaining(self, name: str) -> list[str]:
        async def has_any(kind: Kind) -> bool:
            return bool((await self._context.session.list(kind, Object, namespace=name)).items)

        contents = self._contents()
        found = await together(map(has_any, contents))
        return [kind.resource for kind, some in zip(contents, found, strict=True) if some]

    async def _finalize(self, body: JSON) -> None:
        try:
            await self._context.session.update(NAMESPACE, body, subresource="finalize")
        except (NotFound, Conflict):
            return  # gone, or changed: its event comes by
