"""The schema in the form that merging needs: each node knows how its children are told apart.

Compiled once for each type, on first use, and walked at every write: plain attributes, no look-ups in the schema.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec

from kubesvc.api import schema
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.api.schema import Field
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.custom.structural import PRESERVE, values_of

Form = Literal["leaf", "struct", "map", "keyed", "set"]

_DEFAULTS: dict[str, Any] = {"protocol": "TCP"}  # of keys that may be left out
# Fields that are always there in upstream's own representation, so that nobody owns the mere fact that they are.
_ALWAYS = frozenset(
    ("metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "loadBalancer")
)
_encode = msgspec.json.Encoder(order="sorted").encode


class Shape:
    """`fields` are a struct's, `inner` what a map or a list holds, `keys` a keyed list's, `always` the fields of a
    struct whose presence is nobody's."""

    __slots__ = ("always", "fields", "form", "inner", "keys")

    def __init__(self, form: Form) -> None:
        self.form: Form = form
        self.fields: dict[str, tuple[str, Shape]] = {}  # name -> (its element, its shape)
        self.inner: Shape | None = None
        self.keys: tuple[str, ...] = ()
        self.always: frozenset[str] = frozenset()

    def item(self, value: Any) -> str:
        """The element by which an item of this list is known: k:{"port":80,"protocol":"TCP"}, or v:"a"."""
        if self.form == "set":
            return f"v:{_encode(value).decode()}"
        return f"k:{_encode({key: value.get(key, _DEFAULTS.get(key)) for key in self.keys}).decode()}"

    def child(self, name: str) -> tuple[str, Shape]:
        """(element, shape) of a struct's or a map's field; what the schema doesn't know is a leaf."""
        found = self.fields.get(name)
        return found if found is not None else (f"f:{name}", self.inner or LEAF)

    def takes(self, value: Any) -> bool:
        """Whether `value` has children to tell apart."""
        match self.form:
            case "leaf":
                return False
            case "struct" | "map":
                return isinstance(value, dict)
            case "set":
                return isinstance(value, list)
            case "keyed":
                return isinstance(value, list) and all(isinstance(item, dict) for item in value)


LEAF = Shape("leaf")


def of(kind: Kind) -> Shape:
    """The shape of a kind's objects."""
    if isinstance(kind, CustomKind):
        return _of_custom(kind)
    return _struct(schema.type_name(kind))


def _of_custom(kind: CustomKind) -> Shape:
    """Made once for each schema; a definition that changes has another."""
    known = _customs.get(id(kind.schema))
    if known is None or known[0] is not kind.schema:
        if len(_customs) >= _MOST_CUSTOM:
            _customs.clear()
        shape = _open(kind.schema)
        if shape.form != "struct":
            shape = Shape("struct")
        metadata = _struct("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        shape.fields = {**shape.fields, "apiVersion": ("f:apiVersion", LEAF), "kind": ("f:kind", LEAF),
                        "metadata": ("f:metadata", metadata)}  # fmt: skip
        shape.always = frozenset(("metadata",))
        known = _customs[id(kind.schema)] = (kind.schema, shape)
    return known[1]


_MOST_CUSTOM = 512
_customs: dict[int, tuple[JSON, Shape]] = {}  # id of a schema -> the schema, which keeps the id its own; its shape


def _open(found: JSON) -> Shape:
    """A structural schema's shape. What it leaves open merges by name, and its lists as wholes."""
    if found.get("x-kubernetes-map-type") == "atomic":
        return LEAF
    if found.get("type") == "array":
        kind = found.get("x-kubernetes-list-type")
        if kind not in ("map", "set"):
            return LEAF
        shape = Shape("keyed" if kind == "map" else "set")
        shape.inner, shape.keys = _open(found["items"]), tuple(sorted(found.get("x-kubernetes-list-map-keys") or ()))
        return shape
    values = values_of(found)
    if found.get("properties"):
        shape = Shape("struct")
        shape.fields = {name: (f"f:{name}", _open(field)) for name, field in found["properties"].items()}
        shape.inner = ANYTHING if found.get(PRESERVE) else None
        return shape
    if values is not None:
        shape = Shape("map")
        shape.inner = _open(values)
        return shape
    return ANYTHING if found.get(PRESERVE) else LEAF


ANYTHING = Shape("map")
ANYTHING.inner = ANYTHING


@cache
def _struct(name: str) -> Shape:
    found = schema.named(name)
    if found.map == "atomic" or not found.fields:
        return LEAF
    shape = _structs.setdefault(name, Shape("struct"))
    if not shape.fields:
        shape.fields = dict.fromkeys(found.fields, ("", LEAF))  # a type may contain itself
        shape.fields = {field: (f"f:{field}", _shape(f)) for field, f in found.fields.items()}
        shape.always = frozenset(field for field in found.fields if field in _ALWAYS or field in found.required)
    return shape


_structs: dict[str, Shape] = {}  # name of a type -> its shape, perhaps still being made


def _shape(field: Field) -> Shape:
    if field.atomic:
        return LEAF
    if field.ref:
        return _structs.get(field.ref) or _struct(field.ref)
    if field.values is not None:
        shape = Shape("map")
        shape.inner = _shape(field.values)
        return shape
    if field.items is not None and field.list in ("map", "set"):
        shape = Shape("keyed" if field.list == "map" else "set")
        shape.inner = _shape(field.items)
        shape.keys = tuple(sorted(field.keys))
        return shape
    return LEAF
