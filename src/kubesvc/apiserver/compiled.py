"""The schema compiled to msgspec structs: whether a tree has the right types, answered at the speed of C.

It says only yes or no; `fields` walks the tree for the reasons, and only then. A kind is compiled when first asked for
(a millisecond; twenty for pods).
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated, Any

import msgspec

from kubesvc.api import schema
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.api.schema import Field

QUANTITY = r"[+-]?(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?"

_QUANTITY = Annotated[str, msgspec.Meta(pattern=f"^{QUANTITY}$")]
_TIME = Annotated[datetime, msgspec.Meta(tz=True)]
_INT32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_PLAIN: dict[str, Any] = {
    "boolean": bool,
    "number": int | float,
    "int-or-string": int | str,
    "quantity": _QUANTITY | int | float,
    "any": Any,
}


def fits(kind: Kind, tree: JSON, *, strict: bool = False) -> bool:
    """Whether every value of `tree` is of its field's type, and with `strict` no field is unknown. No may be wrong (an
    empty time is fine), yes never is."""
    try:
        msgspec.convert(tree, _struct(schema.type_name(kind), strict))
    except (msgspec.ValidationError, TypeError):
        return False
    return True


@cache
def _struct(name: str, strict: bool) -> Any:
    # Numbered attributes, because some fields have names that Python keeps for itself.
    fields = list(schema.named(name).fields.items())
    names = {f"f{index}": field for index, (field, _) in enumerate(fields)}
    definition = [(f"f{index}", _type(field, strict) | None, None) for index, (_, field) in enumerate(fields)]
    return msgspec.defstruct(name.rsplit(".", 1)[1], definition, rename=names, forbid_unknown_fields=strict)


_RECURSIVE = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
"""Holds itself: a definition's own admission looks inside."""


def _type(field: Field, strict: bool) -> Any:
    if field.ref == _RECURSIVE:
        return dict[str, Any]
    if field.ref:
        return _struct(field.ref, strict)
    match field.type:
        case "string":
            return _TIME if field.format == "date-time" else str
        case "integer":
            return _INT32 if field.format == "int32" else _INT64
        case "array":
            return list[_type(field.items, strict)] if field.items else list[Any]  # type: ignore[misc]
        case "object":
            return dict[str, _type(field.values, strict) | None] if field.values else dict[str, Any]  # type: ignore[misc]
        case plain:
            return _PLAIN[plain]
