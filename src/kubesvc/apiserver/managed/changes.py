"""Whose the fields are after a create and an update.

create   who creates owns all there is
update   what is new or changed is now the writer's alone; what is gone is nobody's
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.managed import entries as managed
from kubesvc.apiserver.managed import sets, shapes
from kubesvc.apiserver.managed.entries import UPDATE, Entries, Entry, Owner
from kubesvc.apiserver.managed.typed import compare, created, stripped

_CHOSEN = {("", "services"): ("ipFamilyPolicy", "ipFamilies"), ("", "namespaces"): ("finalizers",)}


class Writer(msgspec.Struct, frozen=True):
    """Who writes, through which subresource, at which time (as metadata has times)."""

    manager: str
    now: str
    subresource: str = ""

    def owner(self, kind: Kind, operation: str) -> Owner:
        return Owner(self.manager, operation, kind.api_version if operation == UPDATE else "", self.subresource)


def left_out(kind: Kind, tree: JSON) -> tuple[str, ...]:
    """Of a tree as it came: the fields of its spec that the server will choose, so that nobody has set them."""
    chosen, spec = _CHOSEN.get((kind.group, kind.plural), ()), tree.get("spec")
    return tuple(f"f:{name}" for name in chosen if not isinstance(spec, dict) or name not in spec)


def record_create(
    kind: Kind, tree: JSON, writer: Writer, chosen: Sequence[str] = (), added: Sequence[Sequence[str]] = ()
) -> None:
    """Give all of a new `tree` but what was `chosen`, and the elements that admission `added` (each by its path), to
    its writer, beside what the client says of others' fields."""
    given = tree["metadata"].pop("managedFields", None)
    fields = stripped(created(tree, shapes.of(kind)), writer.subresource)
    for element in chosen:
        fields.get("f:spec", {}).pop(element, None)
    for path in added:
        _disown(fields, path)
    owner = writer.owner(kind, UPDATE)
    entry = Entry(fields, kind.api_version, writer.now)
    known = managed.decode(given) if given else None
    if known is None:
        tree["metadata"]["managedFields"] = [managed.encode_one(owner, entry)]
        return
    managed.lose(known, (fields,))
    known[owner] = entry
    tree["metadata"]["managedFields"] = managed.encode(known)


def _disown(fields: sets.Fields, path: Sequence[str]) -> None:
    """Take the element at `path` out, and what would be left empty above it."""
    first, *rest = path
    if first not in fields:
        return
    if not rest:
        del fields[first]
        return
    inside = dict(fields[first])
    _disown(inside, rest)
    if inside.keys() <= {"."}:
        del fields[first]
    else:
        fields[first] = inside


def record_update(kind: Kind, old: JSON, new: JSON, writer: Writer) -> None:
    """The managed fields of `new`, which `writer` makes of `old`. What a client sends as managedFields is where that
    starts from, except through a subresource; none means as they were, [{}] that nobody owns anything."""
    kept, given = old["metadata"].get("managedFields"), new["metadata"].pop("managedFields", None)
    if not kept and not given:
        return
    entries: Entries | None = None
    reset = given == [{}] and not writer.subresource
    if given and given != kept and not writer.subresource:
        entries = {} if reset else managed.decode(given)
    if entries is None:
        given = kept
        entries = managed.decode(kept) or {}
    changed, removed = compare(old, new, shapes.of(kind))
    changed = stripped(changed, writer.subresource)
    if changed or removed:
        managed.lose(entries, (changed, removed))
    if changed and not reset:
        owner = writer.owner(kind, UPDATE)
        own = entries.get(owner)
        fields = sets.union(own.fields, changed) if own else changed
        entries[owner] = Entry(fields, kind.api_version, writer.now)
        managed.cap(entries)
    if after := managed.encode(entries):
        new["metadata"]["managedFields"] = after
