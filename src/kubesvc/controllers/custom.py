"""Keeps an informer for each kind that a CustomResourceDefinition defines, while it does.

Custom resources own things and are in namespaces: whoever collects garbage or empties a namespace must see them. The
caches tell them of each kind that comes.
"""

from __future__ import annotations

import asyncio

from kubesvc.api.errors import NotFound
from kubesvc.api.meta import JSON, Object
from kubesvc.api.registry import CUSTOM_RESOURCE_DEFINITION as DEFINITION
from kubesvc.api.registry import Kind
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context


class CustomKindsController:
    def __init__(self, context: Context) -> None:
        self._context = context
        self.queue: WorkQueue[str] = WorkQueue("custom-kinds")
        self._following: dict[str, tuple[Kind, asyncio.Task[None]]] = {}  # definition -> its kind, its informer's task
        informer = context.caches.for_kind(DEFINITION)
        assert informer is not None
        informer.on_change(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        found = new or old
        assert found is not None
        self.queue.add(found.name)

    async def run(self) -> None:
        try:
            await self.queue.run(self.reconcile)
        finally:
            for _, task in self._following.values():
                task.cancel()

    async def reconcile(self, name: str) -> None:
        try:
            wanted = kind_of(await self._context.session.get(DEFINITION, "", name))
        except NotFound:
            wanted = None
        known = self._following.get(name)
        if known is not None and wanted != known[0]:
            del self._following[name]
            known[1].cancel()
            self._context.caches.drop(known[0])
        if wanted is not None and name not in self._following:
            informer = self._context.caches.add(wanted)
            self._following[name] = wanted, asyncio.create_task(informer.run(), name=f"informer of {wanted.resource}")


def kind_of(tree: JSON) -> Kind | None:
    """The kind a definition defines, in a version that is served; None while there is none."""
    conditions = (tree.get("status") or {}).get("conditions") or ()
    established = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
    version = next((v["name"] for v in tree["spec"]["versions"] if v.get("served")), None)
    if not established or version is None:
        return None
    spec, names = tree["spec"], tree["status"]["acceptedNames"]
    singular = names.get("singular") or names["kind"].lower()
    return Kind(spec["group"], version, names["kind"], names["plural"], singular, spec["scope"] == "Namespaced")
