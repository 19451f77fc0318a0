"""Owner references: who controls an object, and which objects a controller takes in or lets go.

Follows the ControllerRefManager of the Kubernetes controllers: an owner adopts what its selector matches and nobody
controls, and releases what it controls but no longer matches. Nothing is adopted by, or into, an object being deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from kubesvc.api.meta import JSON, Object, OwnerReference
from kubesvc.api.registry import Kind
from kubesvc.api.selectors import Selector, matches

T = TypeVar("T", bound=Object)


def controller_of(item: Object) -> OwnerReference | None:
    return next((r for r in item.metadata.owner_references if r.controller), None)


def reference_to(kind: Kind, owner: Object) -> JSON:
    """The ownerReference that marks an object as controlled by `owner`."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": owner.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


class Claims(NamedTuple, Generic[T]):
    """`owned` includes those to adopt; those to release are in `release` alone."""

    owned: list[T]
    adopt: list[T]
    release: list[T]


def claim(owner: Object, selector: Selector, candidates: Iterable[T]) -> Claims[T]:
    """Sort `candidates` (controlled by the owner, or by nobody) by what is to be done with each."""
    going = owner.metadata.deletion_timestamp is not None
    claims: Claims[T] = Claims([], [], [])
    for item in candidates:
        controller = controller_of(item)
        fits = matches(selector, item.metadata.labels)
        if controller is not None:
            if controller.uid != owner.metadata.uid:
                continue
            if fits:
                claims.owned.append(item)
            elif not going:
                claims.release.append(item)
        elif fits and not going and item.metadata.deletion_timestamp is None:
            claims.owned.append(item)
            claims.adopt.append(item)
    return claims


def _references(references: Sequence[OwnerReference]) -> list[JSON]:
    return [msgspec.to_builtins(r) for r in references]


def adoption(kind: Kind, owner: Object, item: Object, finalizer: str = "") -> JSON:
    """The patch by which `owner` takes `item` in, and holds it by `finalizer`. The uid makes it fail for another object
    of the same name."""
    references = _references(item.metadata.owner_references)
    meta: JSON = {"uid": item.metadata.uid, "ownerReferences": [*references, reference_to(kind, owner)]}
    if finalizer and finalizer not in item.metadata.finalizers:
        meta["finalizers"] = [*item.metadata.finalizers, finalizer]
        meta["resourceVersion"] = item.metadata.resource_version
    return {"metadata": meta}


def without_owners(item: Object, uids: frozenset[str], finalizer: str = "") -> JSON:
    """The patch that takes the references to `uids`, and `finalizer`, away from `item`; None as a list removes the
    field."""
    kept = _references([r for r in item.metadata.owner_references if r.uid not in uids])
    meta: JSON = {"uid": item.metadata.uid, "ownerReferences": kept or None}
    if finalizer in item.metadata.finalizers:
        meta["finalizers"] = [f for f in item.metadata.finalizers if f != finalizer] or None
    if item.metadata.resource_version:
        meta["resourceVersion"] = item.metadata.resource_version
    return {"metadata": meta}
