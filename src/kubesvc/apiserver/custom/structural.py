"""Structural schemas: what an OpenAPI v3 schema keeps, what it fills in, and whether it is structural at all.

A field that the schema doesn't name is pruned, unless x-kubernetes-preserve-unknown-fields says otherwise; at the root
and in embedded resources apiVersion, kind and metadata always stay. Follows
apiextensions-apiserver pkg/apiserver/schema.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.causes import forbidden, invalid, not_supported, required

PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
INT_OR_STRING = "x-kubernetes-int-or-string"
LIST_TYPE, LIST_KEYS = "x-kubernetes-list-type", "x-kubernetes-list-map-keys"
MAP_TYPE = "x-kubernetes-map-type"
RULES = "x-kubernetes-validations"

_META = ("apiVersion", "kind", "metadata")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_FORBIDDEN = ("$ref", "$schema", "id", "definitions", "dependencies", "patternProperties", "additionalItems")
_KNOWN = frozenset(
    ("description", "type", "format", "title", "default", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
     "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf", "enum", "maxProperties",
     "minProperties", "required", "items", "allOf", "oneOf", "anyOf", "not", "properties", "additionalProperties",
     "externalDocs", "example", "nullable", PRESERVE, EMBEDDED, INT_OR_STRING, LIST_TYPE, LIST_KEYS, RULES,
     MAP_TYPE, *_FORBIDDEN)
)  # fmt: skip
_DEEPEST = 64


def values_of(schema: JSON) -> JSON | None:
    """The schema of a map's values; {} where they may be anything; None where it is no map."""
    found = schema.get("additionalProperties")
    if isinstance(found, dict):
        return found
    return {PRESERVE: True} if found is True else None


def inner(schema: JSON, name: str) -> JSON | None:
    """The schema of the field `name`, None where the schema has none for it."""
    found: JSON | None = (schema.get("properties") or {}).get(name)
    return found if found is not None else values_of(schema)


# ── pruning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def prune(schema: JSON, value: Any, *, root: bool = False) -> None:
    """Take out, in place, what the schema doesn't keep."""
    for holder, name, _ in _unknown(schema, value, "", root):
        del holder[name]


def unknown(schema: JSON, value: Any) -> list[str]:
    """The paths of what `prune` would take out of an object."""
    return [path for _, _, path in _unknown(schema, value, "", True)]


def _unknown(schema: JSON, value: Any, path: str, root: bool) -> Iterator[tuple[JSON, str, str]]:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                yield from _unknown(items, item, f"{path}[{index}]", False)
        return
    if not isinstance(value, dict):
        return
    kept = _META if root or schema.get(EMBEDDED) else ()
    for name, item in list(value.items()):
        if name in kept:
            continue
        here = f"{path}.{name}" if path else name
        field = inner(schema, name)
        if field is not None:
            yield from _unknown(field, item, here, False)
        elif not schema.get(PRESERVE):
            yield value, name, here


# ── defaulting ───────────────────────────────────────────────────────────────────────────────────────────────────────


def default(schema: JSON, value: Any) -> None:
    """Fill in defaults, in place. A null where the schema allows none counts as not given, if there is a default."""
    if isinstance(value, dict):
        for name, field in (schema.get("properties") or {}).items():
            if "default" in field and (name not in value or (value[name] is None and not field.get("nullable"))):
                value[name] = copy.deepcopy(field["default"])
            elif name in value and value[name] is None and not field.get("nullable"):
                continue
            if name in value:
                default(field, value[name])
        values = values_of(schema)
        if values is not None:
            known = schema.get("properties") or {}
            for name, item in value.items():
                if name not in known:
                    default(values, item)
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        for item in value:
            default(items, item)


def has_defaults(schema: JSON) -> bool:
    return any("default" in found for found, _ in walk(schema, ""))


def walk(schema: JSON, path: str) -> Iterator[tuple[JSON, str]]:
    """Every schema in `schema` that describes a value of its own, with its path."""
    yield schema, path
    for name, field in (schema.get("properties") or {}).items():
        if isinstance(field, dict):
            yield from walk(field, f"{path}.properties[{name}]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}.additionalProperties")
    if isinstance(schema.get("items"), dict):
        yield from walk(schema["items"], f"{path}.items")


def judges(schema: JSON, path: str) -> Iterator[tuple[JSON, str]]:
    """Every schema in `schema` that judges values, with its path: those that `walk` finds, and what is under their
    allOf, anyOf, oneOf and not."""
    for found, where in walk(schema, path):
        for word in ("allOf", "anyOf", "oneOf"):
            for index, part in enumerate(found.get(word) or ()):
                yield from judges(part, f"{where}.{word}[{index}]")
        if isinstance(found.get("not"), dict):
            yield from judges(found["not"], f"{where}.not")
        yield found, where


# ── whether it is structural ─────────────────────────────────────────────────────────────────────────────────────────


def check(schema: Any, path: str) -> list[Cause]:
    """Why `schema` can't be a version's; empty when it can. Everything else here may take a checked one for granted."""
    causes = list(mistyped(schema, path)) or list(_check(schema, path))
    if not causes and (found := schema.get("type", "")) != "object":
        causes.append(invalid(f"{path}.type", found, "must be object at the root"))
    return causes


def mistyped(schema: Any, path: str, depth: int = 0) -> Iterator[Cause]:
    """The keywords whose values aren't of their types, all the way down; who gets past it may take them for granted."""
    if not isinstance(schema, dict):
        yield invalid(path, str(schema)[:80], "must be a schema, which is an object")
        return
    if depth > _DEEPEST:
        yield invalid(path, "", f"may not be nested deeper than {_DEEPEST}")
        return
    for word, value in schema.items():
        if word in _SHAPES and not _SHAPES[word](value):
            yield invalid(f"{path}.{word}", str(value)[:80], "is of the wrong type")
            return
    for where, part in _inside(schema, path):
        yield from mistyped(part, where, depth + 1)


def _inside(schema: JSON, path: str) -> Iterator[tuple[str, Any]]:
    """The schemas right inside one whose keywords are of their types, with their paths."""
    for name, field in (schema.get("properties") or {}).items():
        yield f"{path}.properties[{name}]", field
    for word in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(schema.get(word) or ()):
            yield f"{path}.{word}[{index}]", part
    for word, other in (("not", ()), ("items", list), ("additionalProperties", bool)):
        if word in schema and not isinstance(schema[word], other):
            yield f"{path}.{word}", schema[word]


def _check(schema: JSON, path: str) -> Iterator[Cause]:
    yield from _check_words(schema, path)
    yield from _check_lists(schema, path)
    properties = schema.get("properties")
    for name, field in (properties or {}).items():
        yield from _check(field, f"{path}.properties[{name}]")
    values = schema.get("additionalProperties")
    if values is not None and not isinstance(values, bool):
        yield from _check(values, f"{path}.additionalProperties")
    if values is not None and properties:
        yield forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    items = schema.get("items")
    if isinstance(items, list):
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    elif items is not None:
        yield from _check(items, f"{path}.items")
    elif schema.get("type") == "array":
        yield required(f"{path}.items", "must be specified")


def _check_words(schema: JSON, path: str) -> Iterator[Cause]:
    kind = schema.get("type", "")
    if kind not in ("", *_TYPES):
        yield not_supported(f"{path}.type", kind, _TYPES)
    if not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        yield required(f"{path}.type", "must not be empty for specified object fields")
    if kind and schema.get(INT_OR_STRING):
        yield invalid(f"{path}.type", kind, "must be empty if x-kubernetes-int-or-string is true")
    for word in _FORBIDDEN:
        if word in schema:
            yield forbidden(f"{path}.{word}", f"{word} is not supported")
    if schema.get("uniqueItems"):
        yield forbidden(f"{path}.uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes "
                        "quadratic")  # fmt: skip
    for word in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(schema.get(word) or ()):
            yield from _check_value_validation(part, f"{path}.{word}[{index}]")
    if "not" in schema:
        yield from _check_value_validation(schema["not"], f"{path}.not")
    if schema.get(EMBEDDED) and kind != "object":
        yield invalid(f"{path}.type", kind, "must be object if x-kubernetes-embedded-resource is true")
    if schema.get(PRESERVE) is False:
        yield invalid(f"{path}.{PRESERVE}", False, "must be true or undefined")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _map(value: Any) -> bool:
    return isinstance(value, dict)


def _rules(value: Any) -> bool:
    texts, known = ("rule", "message", "messageExpression", "reason", "fieldPath"), isinstance(value, list)
    return known and all(
        isinstance(rule, dict)
        and all(isinstance(rule.get(word, ""), str) for word in texts)
        and isinstance(rule.get("optionalOldSelf", False), bool)
        for rule in value
    )


_SHAPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("type", "title", "description", "format", "pattern", LIST_TYPE, MAP_TYPE), _text),
    **dict.fromkeys(("nullable", "exclusiveMaximum", "exclusiveMinimum", "uniqueItems", PRESERVE, EMBEDDED,
                     INT_OR_STRING), _yes_or_no),
    **dict.fromkeys(("maximum", "minimum", "multipleOf"), _number),
    **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), _whole),
    **dict.fromkeys(("enum", "allOf", "anyOf", "oneOf"), _list),
    **dict.fromkeys(("required", LIST_KEYS), _texts),
    "properties": _map,
    RULES: _rules,
}  # fmt: skip


_OF_VALUES = ("type", "default", "title", "description", "nullable", PRESERVE, EMBEDDED, INT_OR_STRING, LIST_TYPE,
              LIST_KEYS, MAP_TYPE, RULES)  # fmt: skip


def _check_value_validation(part: JSON, path: str) -> Iterator[Cause]:
    """Under allOf and its like only values may be judged: no new types, defaults or descriptions of fields."""
    for word in _OF_VALUES:
        if word in part and not (word == "type" and part[word] in ("integer", "string")):
            yield forbidden(f"{path}.{word}", "must be empty to be structural")
    for where, field in _inside(part, path):
        yield from _check_value_validation(field, where)


def _check_lists(schema: JSON, path: str) -> Iterator[Cause]:
    kind, keys = schema.get(LIST_TYPE), schema.get(LIST_KEYS)
    if kind is not None and kind not in ("atomic", "map", "set"):
        yield not_supported(f"{path}.{LIST_TYPE}", kind, ("atomic", "map", "set"))
    if kind is not None and schema.get("type") != "array":
        yield invalid(f"{path}.type", schema.get("type", ""), f"must be array if {LIST_TYPE} is specified")
    if kind != "map":
        if keys:
            yield invalid(f"{path}.{LIST_TYPE}", kind, f"must be map if {LIST_KEYS} is non-empty")
        return
    if not keys or not isinstance(keys, list):
        yield required(f"{path}.{LIST_KEYS}", f"must not be empty if {LIST_TYPE} is map")
        return
    items = schema.get("items")
    items = items if isinstance(items, dict) else {}
    known = items.get("properties") or {}
    for index, key in enumerate(keys):
        if key not in known:
            yield invalid(f"{path}.{LIST_KEYS}[{index}]", key, "entries must all be names of item properties")
        elif "default" not in known[key] and key not in (items.get("required") or ()):
            why = f"this property is in {LIST_KEYS}, so it must have a default or be a required property"
            yield required(f"{path}.items.properties[{key}].default", why)


def unknown_words(schema: Any, path: str) -> list[str]:
    """Keywords that no schema has, by path."""
    return [f"{where}.{word}" for found, where in walk(schema, path) for word in found if word not in _KNOWN]
