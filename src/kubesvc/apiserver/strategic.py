"""Strategic merge patch: a merge patch whose lists merge by the schema's keys, with directives.

    ports: [{port: 80, nodePort: 30080}]        a list with a merge key: the item with that key is merged, else added
    containers: [{name: a, $patch: delete}]     … and removed
    finalizers: [x]                             a list of plain values with strategy merge: a union
    $deleteFromPrimitiveList/finalizers: [y]    … and what to take out of it
    $setElementOrder/ports: [{port: 443}, {port: 80}]      the order of the result
    $retainKeys: [type, rollingUpdate]          the only fields of this object that may stay
    $patch: replace                             this object or list is replaced as a whole

What the schema doesn't know merges as in RFC 7386. Follows apimachinery pkg/util/strategicpatch and the design document
"strategic-merge-patch" of sig-api-machinery.
"""

from __future__ import annotations

from typing import Any

from kubesvc.api import schema
from kubesvc.api.meta import JSON
from kubesvc.api.schema import Field, Type

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


class StrategicError(Exception):
    """A patch that can't be understood: an unknown directive, an item without its merge key."""


def merge(current: JSON, patch: JSON, of: Type | None) -> JSON:
    """`current` with `patch` merged in, in place. `of` is the type of both, None when it isn't known."""
    match patch.get(_DIRECTIVE):
        case None | "merge":
            pass
        case "replace":
            return {k: v for k, v in patch.items() if k != _DIRECTIVE}
        case "delete":
            return {}
        case unknown:
            raise StrategicError(f"unknown patch type found: {unknown}")
    if _RETAIN in patch:
        _retain(current, patch)
    orders = {name[len(_ORDER) :]: order for name, order in patch.items() if name.startswith(_ORDER)}
    for name, values in patch.items():
        if name.startswith(_DELETE_FROM):
            at = name[len(_DELETE_FROM) :]
            if isinstance(current.get(at), list):
                current[at] = [v for v in current[at] if v not in values]
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        field = of.fields.get(name) if of is not None else None
        if value is None:
            current.pop(name, None)
        elif name in current:
            current[name] = _merge_value(current[name], value, field)
        else:
            current[name] = _merge_value(_nothing_like(value), value, field)
    for name, order in orders.items():
        if isinstance(current.get(name), list):
            field = of.fields.get(name) if of is not None else None
            current[name] = _ordered(current[name], order, field)
    return current


def _nothing_like(value: Any) -> Any:
    return {} if isinstance(value, dict) else [] if isinstance(value, list) else None


def _retain(current: JSON, patch: JSON) -> None:
    keep = patch[_RETAIN]
    if not isinstance(keep, list):
        raise StrategicError(f"{_RETAIN} must be a list of field names")
    unlisted = [k for k, v in patch.items() if not k.startswith("$") and v is not None and k not in keep]
    if unlisted:
        raise StrategicError(f"{_RETAIN} must contain all fields of the patch; {', '.join(unlisted)} are missing")
    for name in [n for n in current if n not in keep]:
        del current[name]


def _type(field: Field | None) -> Type | None:
    return schema.named(field.ref) if field is not None and field.ref else None


def _merge_value(current: Any, value: Any, field: Field | None) -> Any:
    replaced = field is not None and "replace" in field.strategies
    if isinstance(value, dict):
        if not isinstance(current, dict) or replaced:
            current = {}
        if field is not None and field.values is not None:
            return _merge_map(current, value, field.values)
        return merge(current, value, _type(field))
    if isinstance(value, list):
        if field is not None and "merge" in field.strategies and isinstance(current, list):
            return _merge_list(current, value, field)
        return [v for v in value if not (isinstance(v, dict) and _DIRECTIVE in v and len(v) == 1)]
    return value


def _merge_map(current: JSON, patch: JSON, values: Field) -> JSON:
    if patch.get(_DIRECTIVE) in ("replace", "delete") or values.ref:
        return merge(current, patch, Type(dict.fromkeys(patch, values)))
    return merge(current, patch, None)


def _merge_list(current: list[Any], patch: list[Any], field: Field) -> list[Any]:
    if any(isinstance(v, dict) and v.get(_DIRECTIVE) == "replace" for v in patch):
        return [v for v in patch if not (isinstance(v, dict) and v.get(_DIRECTIVE) == "replace")]
    if not field.merge:
        return current + [v for i, v in enumerate(patch) if v not in current and v not in patch[:i]]
    result, of = list(current), _type(field.items)
    for item in patch:
        if not isinstance(item, dict) or field.merge not in item:
            raise StrategicError(f"map: {item} does not contain declared merge key: {field.merge}")
        key = item[field.merge]
        matching = [i for i, v in enumerate(result) if isinstance(v, dict) and v.get(field.merge) == key]
        if item.get(_DIRECTIVE) == "delete":
            result = [v for i, v in enumerate(result) if i not in matching]
        elif matching:
            at = _closest(result, matching, item, field)
            result[at] = merge(result[at], item, of)
        else:
            result.append(merge({}, item, of))
    return result


def _closest(items: list[Any], matching: list[int], item: JSON, field: Field) -> int:
    """Of the items with the merge key, the one that agrees on the list's other keys: port 53 may be there twice, for
    TCP and UDP. (Upstream takes the first.)"""
    others = [k for k in field.keys if k in item]
    return next((i for i in matching if all(items[i].get(k) == item[k] for k in others)), matching[0])


def _ordered(items: list[Any], order: list[Any], field: Field | None) -> list[Any]:
    """Those named in `order` in that order; the rest, which the client didn't know of, stay where they were
    between the neighbours they had."""
    key = field.merge if field is not None else ""

    def identity(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted = [identity(o) for o in order]
    named = [i for i in items if identity(i) in wanted]
    named.sort(key=lambda item: wanted.index(identity(item)))
    result: list[Any] = []
    for item in items:
        if identity(item) in wanted:
            if named:
                result.append(named.pop(0))
        else:
            result.append(item)
    return result
