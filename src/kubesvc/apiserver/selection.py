"""Which objects of a collection a request asks for: labelSelector and fieldSelector, applied to stored objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.api.selectors import FieldRequirement, Selector, matches, parse_field_selector, parse_label_selector
from kubesvc.apiserver import stored, views

Decode = Callable[[str, bytes, int], JSON]
"""(key, value, revision) -> the object, to look at and not to change."""

# field -> what it is when it is left out
_UNSET = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.replicas": "0", "status.succeeded": "0"}
_SPELLED = {"status.successful": "status.succeeded"}  # field as it is selected by -> as it is called


class Selection(msgspec.Struct, frozen=True):
    """`names` are the field requirements that the key alone answers."""

    labels: Selector = ()
    fields: tuple[FieldRequirement, ...] = ()
    names: tuple[FieldRequirement, ...] = ()

    @property
    def everything(self) -> bool:
        return not (self.labels or self.fields or self.names)

    @property
    def name(self) -> str:
        """The one name asked for, or ""."""
        return next((r.value for r in self.names if r.path == "metadata.name" and r.equal), "")

    def matches(self, key: str, value: bytes, revision: int, decode: Decode) -> bool:
        if self.names:
            namespace, name = stored.name_of(key)
            for path, equal, wanted in self.names:
                if ((name if path == "metadata.name" else namespace) == wanted) != equal:
                    return False
        if not (self.labels or self.fields):
            return True
        tree = decode(key, value, revision)
        if self.labels and not matches(self.labels, tree["metadata"].get("labels") or {}):
            return False
        return all((field_value(tree, path) == wanted) == equal for path, equal, wanted in self.fields)


def decoded(key: str, value: bytes, revision: int) -> JSON:
    """For objects that are looked at once, as in a list."""
    return stored.decode(value, revision)


def parse(kind: Kind, query: Mapping[str, str]) -> Selection:
    """Raises BadRequest for a selector that can't be read or a field that can't be selected by."""
    text = query.get("labelSelector", "")
    labels = parse_label_selector(text) if text else ()
    text = query.get("fieldSelector", "")
    if not text:
        return Selection(labels)
    fields = parse_field_selector(text, lambda path: _selectable(kind, path))
    of_key = tuple(r for r in fields if r.path.startswith("metadata."))
    others = (r for r in fields if r not in of_key)
    return Selection(labels, tuple(r._replace(path=_path(kind, r.path)) for r in others), of_key)


def _selectable(kind: Kind, path: str) -> bool:
    """Raises BadRequest, where upstream has words of its own for a kind without fields to select by."""
    if path in ("metadata.name", "metadata.namespace") or path in kind.fields:
        return True
    if kind.fields:
        return False
    raise BadRequest(f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"')


def _path(kind: Kind, path: str) -> str:
    return views.field_path(kind, _SPELLED.get(path, path))


def field_value(tree: JSON, path: str) -> str:
    """The value of a selectable field as text, "" when it isn't set."""
    if path == "source":  # of an Event: who reported it
        return str((tree.get("source") or {}).get("component") or tree.get("reportingComponent") or "")
    found: object = tree
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if found is None:
        return _UNSET.get(path, "")
    return str(found).lower() if isinstance(found, bool) else str(found)
