"""Server-side apply: a configuration merged into an object by who owns what.

live ─► merged with the configuration ─► pruned of what this manager applied before and nobody wants now
        what that changes must be no other's, or be forced
        what the configuration says is this manager's, beside others who want the same
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.managed import entries as managed
from kubesvc.apiserver.managed import sets, shapes
from kubesvc.apiserver.managed.changes import Writer
from kubesvc.apiserver.managed.entries import APPLY, UPDATE, Entries, Entry, Owner
from kubesvc.apiserver.managed.merging import merge, prune
from kubesvc.apiserver.managed.sets import Fields
from kubesvc.apiserver.managed.typed import Duplicate, compare, created, stripped, wanted

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"
_BEFORE = "before-first-apply"  # who owns what was there while nobody kept count


class Conflicts(Exception):
    """An apply that would change what others set: the fields of each."""

    def __init__(self, found: dict[Owner, Fields]) -> None:
        super().__init__(f"conflicts with {len(found)} managers")
        self.found = found

    def items(self) -> list[tuple[Owner, str]]:
        """(whose, path), the owners in upstream's order."""
        order = sorted(self.found, key=lambda o: (o.manager, o.operation, o.api_version, o.subresource))
        return [(owner, path) for owner in order for path in sets.paths(self.found[owner])]


def apply(kind: Kind, live: JSON, config: JSON, writer: Writer, *, force: bool) -> JSON:
    """`live`, {} where there is none, with `config` applied by `writer`; neither is changed. Raises Conflicts.

    kubectl takes over from itself: what stands against it alone because it applied that on the client's side is no
    conflict, and the annotation which says so is kept up to date.
    """
    config = _own_half(config, writer.subresource)
    try:
        found = _apply(kind, live, config, writer, force=force)
    except Conflicts as conflicts:
        if writer.manager != _KUBECTL or not _applied_by_client(kind, live, conflicts):
            raise
        found = _apply(kind, live, config, writer, force=True)
    if writer.manager == _KUBECTL and LAST_APPLIED in _annotations(found):
        annotations = _annotations(found) | {LAST_APPLIED: _last_applied(config)}
        found = found | {"metadata": found["metadata"] | {"annotations": annotations}}
    return found


def _own_half(config: JSON, subresource: str) -> JSON:
    """What a configuration can say through this subresource: not both spec and status."""
    other = "spec" if subresource == "status" else "status"
    return {name: value for name, value in config.items() if name != other}


def _apply(kind: Kind, live: JSON, config: JSON, writer: Writer, *, force: bool) -> JSON:
    shape, owner = shapes.of(kind), writer.owner(kind, APPLY)
    entries = managed.decode((live.get("metadata") or {}).get("managedFields")) or _before(kind, live, writer)
    last = entries.pop(owner, None)
    claim = stripped(wanted(config, shape), writer.subresource)
    new: JSON = merge(live, config, shape)
    if last is not None:
        kept = claim
        for entry in entries.values():
            kept = sets.union(kept, entry.fields)
        new = prune(new, shape, last.fields, kept)
    changed, removed = compare(live, new, shape)
    changed = stripped(changed, writer.subresource)
    conflicts = {o: common for o, entry in entries.items() if (common := sets.intersection(entry.fields, changed))}
    if conflicts and not force:
        raise Conflicts(conflicts)
    managed.lose(entries, (changed, removed))
    same = last is not None and last.fields == claim and not changed and not removed
    if claim:
        entries[owner] = Entry(claim, kind.api_version, last.time if same and last else writer.now)
    return new | {"metadata": new["metadata"] | {"managedFields": managed.encode(entries)}}


def _before(kind: Kind, live: JSON, writer: Writer) -> Entries:
    """Of an object whose fields nobody has owned so far: all are of one who can be told of."""
    if not live:
        return {}
    whole = stripped(created(live, shapes.of(kind)), "")
    owner = replace(writer, manager=_BEFORE, subresource="").owner(kind, UPDATE)
    return {owner: Entry(whole, kind.api_version, writer.now)}


def _applied_by_client(kind: Kind, live: JSON, conflicts: Conflicts) -> bool:
    """Whether all that stands against kubectl is in what it last applied on the client's side."""
    try:
        mine = wanted(msgspec.json.decode(_annotations(live)[LAST_APPLIED]), shapes.of(kind))
    except (KeyError, msgspec.DecodeError, AttributeError, TypeError, Duplicate):
        return False
    return not any(sets.difference(fields, mine) for fields in conflicts.found.values())


def _annotations(tree: JSON) -> JSON:
    return (tree.get("metadata") or {}).get("annotations") or {}


def _last_applied(config: JSON) -> str:
    annotations = {name: value for name, value in _annotations(config).items() if name != LAST_APPLIED}
    metadata = {name: value for name, value in config["metadata"].items() if name != "managedFields"}
    bare = config | {"metadata": metadata | {"annotations": annotations}}
    return msgspec.json.encode(bare, order="sorted").decode() + "\n"
