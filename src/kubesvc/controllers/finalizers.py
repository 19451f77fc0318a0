"""The patches by which a controller puts its finalizer on an object, and lets go of it. Each fails if the object has
changed since it was read. Pure."""

from __future__ import annotations

from kubesvc.api.meta import JSON, Object


def added(item: Object, finalizer: str) -> JSON:
    return _patch(item, [*item.metadata.finalizers, finalizer])


def without(item: Object, finalizer: str) -> JSON:
    return _patch(item, [f for f in item.metadata.finalizers if f != finalizer])


def _patch(item: Object, finalizers: list[str]) -> JSON:
    return {"metadata": {"resourceVersion": item.metadata.resource_version, "finalizers": finalizers or None}}
