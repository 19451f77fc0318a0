"""A new claim that names no class is of the default one, as the DefaultStorageClass plugin has it."""

from __future__ import annotations

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.api.registry import STORAGE_CLASS
from kubesvc.api.storage import StorageClass, default_class
from kubesvc.apiserver import stored
from kubesvc.apiserver.state import State


async def fill_claim(state: State, claim: JSON) -> None:
    """In place. Where there is no default class yet, the claim gets it when there is: a controller sees to that."""
    spec = claim.get("spec")
    if not isinstance(spec, dict) or spec.get("storageClassName") is not None:
        return
    page = await state.store.list(stored.collection(STORAGE_CLASS))
    found = default_class(msgspec.convert(stored.tree_of(item), StorageClass) for item in page.items)
    if found is not None:
        spec["storageClassName"] = found.name
