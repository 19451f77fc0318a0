"""Fields the schema doesn't know, and values of the wrong type, in upstream's words.

Both walk a tree beside its type. Unknown fields are dropped, as a decoder into structs drops them; `fieldValidation`
says what is made of it (Strict refuses, Warn warns). A wrong type is always refused. Null stands for "not given"
everywhere, as in Go's decoder; in a list, for the empty value of what the list holds.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from kubesvc.api import schema
from kubesvc.api.errors import Cause, invalid
from kubesvc.api.meta import JSON, parse_time
from kubesvc.api.registry import Kind
from kubesvc.api.schema import Field, Type
from kubesvc.apiserver.compiled import QUANTITY, fits

_QUANTITY = re.compile(QUANTITY)
MOST_CAUSES = 100  # who sends a million wrong values needn't hear of each
_RANGES = {"int32": 2**31, "int64": 2**63, "": 2**63}


def drop_unknown(kind: Kind, tree: JSON) -> list[str]:
    """Take out of `tree`, in place, each field that the schema doesn't have; `unknown field "spec.foo"` for each."""
    if fits(kind, tree, strict=True):
        return []
    return [f'unknown field "{path}"' for path in _drop_unknown(tree, schema.type_of(kind), "")]


def _drop_unknown(tree: JSON, of: Type, path: str) -> Iterator[str]:
    for name, value in list(tree.items()):
        here = f"{path}.{name}" if path else name
        found = of.fields.get(name)
        if found is None:
            del tree[name]
            yield here
        else:
            yield from _drop_unknown_in(value, found, here)


def _drop_unknown_in(value: Any, field: Field, path: str) -> Iterator[str]:
    if field.ref:
        if isinstance(value, dict):
            yield from _drop_unknown(value, schema.named(field.ref), path)
    elif field.items is not None and isinstance(value, list):
        for index, item in enumerate(value):
            if item is None:
                value[index] = _empty(field.items)
            else:
                yield from _drop_unknown_in(item, field.items, f"{path}[{index}]")
    elif field.values is not None and isinstance(value, dict):
        for key, item in value.items():
            yield from _drop_unknown_in(item, field.values, f"{path}.{key}")


def _empty(field: Field) -> Any:
    return {} if field.ref else copy.copy(_EMPTY.get(field.type))


_EMPTY: JSON = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "object": {},
                "int-or-string": 0, "quantity": "0"}  # fmt: skip


def drop_unknown_in_metadata(tree: JSON) -> list[str]:
    """The same for an object of which only the metadata is known here."""
    return [f'unknown field "{path}"' for path in _drop_unknown_in(tree.get("metadata"), _METADATA, "metadata")]


def check_metadata(tree: JSON) -> list[Cause]:
    """A cause for each value of the metadata that isn't of its field's type."""
    return list(islice(_wrong_in(tree.get("metadata"), _METADATA, "metadata"), MOST_CAUSES))


_METADATA = Field(ref="io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")


def check_types(kind: Kind, tree: JSON) -> list[Cause]:
    """A cause for each value of `tree` that isn't of its field's type."""
    return [] if fits(kind, tree) else list(islice(_wrong(tree, schema.type_of(kind), ""), MOST_CAUSES))


def refuse_mistyped(kind: Kind, tree: JSON) -> None:
    """Of what is asked for and not stored. Raises Invalid."""
    if causes := check_types(kind, tree):
        raise invalid(kind.kind, "", causes, kind.group)


def _wrong(tree: JSON, of: Type, path: str) -> Iterator[Cause]:
    for name, value in tree.items():
        if found := of.fields.get(name):
            yield from _wrong_in(value, found, f"{path}.{name}" if path else name)


def _wrong_in(value: Any, field: Field, path: str) -> Iterator[Cause]:
    if value is None:
        return
    if field.ref:
        if isinstance(value, dict):
            yield from _wrong(value, schema.named(field.ref), path)
        else:
            yield _cause(path, value, "object")
        return
    if (problem := _mismatch(value, field)) is not None:
        yield _cause(path, value, problem)
    elif field.items is not None:
        for index, item in enumerate(value):
            if item is None and field.items.type != "any":
                yield _cause(f"{path}[{index}]", item, field.items.type or "object")
            else:
                yield from _wrong_in(item, field.items, f"{path}[{index}]")
    elif field.values is not None:
        for key, item in value.items():
            yield from _wrong_in(item, field.values, f"{path}[{key}]")


def _mismatch(value: Any, field: Field) -> str | None:
    """What was expected, when `value` isn't it."""
    match field.type:
        case "string":
            if not isinstance(value, str):
                return "string"
            return None if field.format != "date-time" or not value or _is_time(value) else "date-time"
        case "integer":
            if isinstance(value, bool) or not isinstance(value, int):
                return "integer"
            limit = _RANGES.get(field.format, 2**63)
            return None if -limit <= value < limit else field.format or "integer"
        case "number":
            return None if isinstance(value, (int, float)) and not isinstance(value, bool) else "number"
        case "boolean":
            return None if isinstance(value, bool) else "boolean"
        case "array":
            return None if isinstance(value, list) else "array"
        case "object":
            return None if isinstance(value, dict) else "object"
        case "int-or-string":
            return None if isinstance(value, (int, str)) and not isinstance(value, bool) else "integer or string"
        case "quantity":
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                return "quantity"
            return None if _QUANTITY.fullmatch(str(value)) else "quantity"
        case _:
            return None


def _is_time(text: str) -> bool:
    try:
        return parse_time(text).tzinfo is not None
    except ValueError:
        return False


_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number",
          type(None): "null"}  # fmt: skip


def _cause(path: str, value: Any, expected: str) -> Cause:
    found = _NAMES[type(value)]
    if expected == "quantity" and found != "object":
        why = f"quantities must match the regular expression '{_QUANTITY.pattern}'"
    elif expected == "date-time":
        why = "must be an RFC 3339 time, such as 2006-01-02T15:04:05Z"
    elif expected in _RANGES and found == "integer":
        why = f"must be in the range of {expected}"
    else:
        message = f'Invalid value: "{found}": {path} in body must be of type {expected}: "{found}"'
        return Cause("FieldValueTypeInvalid", message, path)
    return Cause("FieldValueInvalid", f"Invalid value: {json.dumps(value, ensure_ascii=False)}: {why}", path)
