"""metadata.managedFields: whose set of fields is whose, through which operation, since when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from kubesvc.api.meta import JSON
from kubesvc.apiserver.managed import sets
from kubesvc.apiserver.managed.sets import Fields

APPLY, UPDATE = "Apply", "Update"
_MOST_UPDATERS = 10
_ANCIENT = "ancient-changes"


class Owner(msgspec.Struct, frozen=True):
    """Who writes, and how. What was applied is one's own in every version, so `api_version` is "" then."""

    manager: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        """As upstream names it in a conflict."""
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == UPDATE else text


class Entry(msgspec.Struct, frozen=True):
    """A set of fields, the version it was written in, and when (as metadata has times; "" when unknown)."""

    fields: Fields
    api_version: str
    time: str = ""


Entries = dict[Owner, Entry]


def decode(found: Any) -> Entries | None:
    """None where `found` isn't a list of entries."""
    entries: Entries = {}
    if not isinstance(found, list):
        return None
    for each in found:
        if not isinstance(each, dict) or not sets.is_set(fields := each.get("fieldsV1") or {}):
            return None
        operation, version = each.get("operation"), each.get("apiVersion") or ""
        if operation not in (APPLY, UPDATE):
            return None
        known = version if operation == UPDATE else ""
        owner = Owner(each.get("manager") or "", operation, known, each.get("subresource") or "")
        entries[owner] = Entry(fields, version, each.get("time") or "")
    return entries


def encode(entries: Entries) -> list[JSON]:
    """As clients see them, in upstream's order."""
    order = sorted(entries, key=lambda o: (o.operation, entries[o].time, o.manager, o.api_version, o.subresource))
    return [encode_one(owner, entries[owner]) for owner in order]


def encode_one(owner: Owner, entry: Entry) -> JSON:
    found: JSON = {
        "manager": owner.manager,
        "operation": owner.operation,
        "apiVersion": entry.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": entry.fields,
    }
    if not entry.time:
        del found["time"]
    if owner.subresource:
        found["subresource"] = owner.subresource
    return found


def put(entries: Entries, owner: Owner, entry: Entry) -> None:
    """`entry` in place of what `owner` had; an empty one goes."""
    if entry.fields:
        entries[owner] = entry
    else:
        entries.pop(owner, None)


def lose(entries: Entries, gone: Sequence[Fields], *, but: Owner | None = None) -> None:
    """Take the fields in `gone` from all, in place."""
    for owner, entry in list(entries.items()):
        if owner != but:
            rest = entry.fields
            for fields in gone:
                rest = sets.difference(rest, fields) if fields else rest
            if rest != entry.fields:
                put(entries, owner, replace(entry, fields=rest))


def cap(entries: Entries) -> None:
    """At most ten updaters: the oldest of one version become one."""
    updaters = sorted((o for o in entries if o.operation == UPDATE), key=lambda o: (entries[o].time, o.manager))
    for owner in updaters[: max(0, len(updaters) - _MOST_UPDATERS + 1)] if len(updaters) > _MOST_UPDATERS else ():
        old = entries.pop(owner)
        ancient = replace(owner, manager=_ANCIENT, subresource="")
        known = entries.get(ancient)
        fields = sets.union(known.fields, old.fields) if known else old.fields
        entries[ancient] = Entry(fields, old.api_version, max(old.time, known.time if known else ""))
