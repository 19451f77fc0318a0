"""Who owns the replicas: managedFields of an object as those of its Scale, and back.

An object's replicas and those of its Scale are the same field by two names. Source: apimachinery
pkg/util/managedfields/scalehandler.go.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kubesvc.api.meta import JSON
from kubesvc.apiserver.managed import entries as managed
from kubesvc.apiserver.managed import sets
from kubesvc.apiserver.managed.entries import Entries, Entry
from kubesvc.apiserver.managed.sets import NOTHING, Fields

_IN_SCALE: Fields = {"f:spec": {"f:replicas": NOTHING}}


def of_scale(given: Any, replicas: str) -> list[JSON]:
    """Of an object's managedFields, as the managedFields of its Scale: those who own `replicas`, a dotted path."""
    here = _path(replicas)
    entries = managed.decode(given) or {}
    return managed.encode({o: replace(entry, fields=_IN_SCALE) for o, entry in entries.items() if _has(entry, here)})


def of_object(given: Any, scale: Any, replicas: str, api_version: str) -> list[JSON]:
    """An object's managedFields after its Scale's have become `scale`: who is there no more has lost the replicas, who
    is new owns them in the object's `api_version`, and through the subresource by which it did it."""
    here = _path(replicas)
    after = {o: entry for o, entry in (managed.decode(scale) or {}).items() if _has(entry, _IN_SCALE)}
    found: Entries = {}
    for owner, entry in (managed.decode(given) or {}).items():
        if not _has(entry, here):
            found[owner] = entry
        elif owner in after:
            found[owner] = replace(entry, time=after.pop(owner).time)
        elif rest := sets.difference(entry.fields, here):
            found[owner] = replace(entry, fields=rest)
    for owner, entry in after.items():
        known = replace(owner, api_version=owner.api_version and api_version)
        found[known] = Entry(here, api_version, entry.time)
    return managed.encode(found)


def _path(dotted: str) -> Fields:
    """The set of one field."""
    found = NOTHING
    for name in reversed(dotted.split(".")):
        found = {f"f:{name}": found}
    return found


def _has(entry: Entry, path: Fields) -> bool:
    return bool(sets.intersection(entry.fields, path))
