"""From objects to sets of fields: what one has, and what differs between two."""

from __future__ import annotations

from typing import Any

from kubesvc.apiserver.managed.sets import NOTHING, Fields, text_of
from kubesvc.apiserver.managed.shapes import LEAF, Shape

_UNOWNED = frozenset(
    ("name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion")
)
_IDENTITY = frozenset(("apiVersion", "kind"))


def stripped(fields: Fields, subresource: str) -> Fields:
    """`fields` without what nobody owns: an object's identity, what the server counts, and the half of it, spec or
    status, that isn't written through this subresource."""
    found = {e: node for e, node in fields.items() if e[2:] not in _IDENTITY}
    found.pop("f:spec" if subresource == "status" else "f:status", None)
    if (metadata := found.pop("f:metadata", None)) is not None:
        kept = {e: node for e, node in metadata.items() if e != "." and e[2:] not in _UNOWNED}
        if kept:
            return {"f:metadata": kept, **found}
    return found


class Duplicate(Exception):
    """A list of a configuration has two items with the same keys; the message says where."""


def wanted(value: Any, shape: Shape, path: str = "") -> Fields:
    """The set an applied configuration claims: its leaves, the items of its lists and the entries of its maps.

    Raises Duplicate."""
    found: Fields = {}
    if shape.form in ("keyed", "set"):
        assert shape.inner is not None
        for item in value:
            element = shape.item(item)
            here = path + text_of(element)
            if element in found:
                raise Duplicate(f"{path}: duplicate entries for key {text_of(element)}")
            inside = wanted(item, shape.inner, here) if shape.inner.takes(item) else NOTHING
            found[element] = {".": NOTHING, **inside} if inside else NOTHING
        return found
    for name, inner in value.items():
        element, child = shape.child(name)
        if not child.takes(inner) or inner == {}:
            found[element] = NOTHING
        elif inside := wanted(inner, child, path + text_of(element)):
            found[element] = {".": NOTHING, **inside} if shape.form == "map" else inside
    return found


def present(value: Any, shape: Shape) -> Fields:
    """Everything that `value` has, each container too: what comes into being with it."""
    found: Fields = {".": NOTHING}
    match shape.form:
        case "struct":
            known = shape.fields
            for name, inner in value.items():
                field = known.get(name)
                if field is None:
                    found[f"f:{name}"] = NOTHING
                elif field[1].form == "leaf" or not inner or not field[1].takes(inner):
                    found[field[0]] = NOTHING
                else:
                    found[field[0]] = present(inner, field[1])
        case "map":
            assert shape.inner is not None
            if shape.inner.form == "leaf":
                for name in value:
                    found[f"f:{name}"] = NOTHING
            else:
                for name, inner in value.items():
                    inside = inner and shape.inner.takes(inner)
                    found[f"f:{name}"] = present(inner, shape.inner) if inside else NOTHING
        case _:
            assert shape.inner is not None
            for item in value:
                inside = item and shape.inner.takes(item)
                found[shape.item(item)] = present(item, shape.inner) if inside else NOTHING
    return found


def created(value: Any, shape: Shape) -> Fields:
    """The set of who creates an object: what is present, but for the containers that are always there."""
    if shape.form != "struct":
        return {element: node for element, node in present(value, shape).items() if element != "."}
    found: Fields = {}
    for name, inner in value.items():
        element, child = shape.child(name)
        if child.form == "leaf" or not inner or not child.takes(inner):
            found[element] = NOTHING
        else:
            found[element] = created(inner, child) if name in shape.always else present(inner, child)
    return found


def compare(old: Any, new: Any, shape: Shape) -> tuple[Fields, Fields]:
    """(what is new or changed, what is gone) between two values that both have children of `shape`."""
    changed: Fields = {}
    removed: Fields = {}
    before, after = children(old, shape), children(new, shape)
    for element, (now, child) in after.items():
        found = before.get(element)
        if found is None:
            if not now or not child.takes(now):
                changed[element] = NOTHING
            else:
                changed[element] = (created if element[2:] in shape.always else present)(now, child)
            continue
        then = found[0]
        if now == then:
            continue
        if not (child.takes(now) and child.takes(then)):
            changed[element] = NOTHING
            continue
        more, less = compare(then, now, child)
        if more:
            changed[element] = more
        if less:
            removed[element] = less
    for element, (then, child) in before.items():
        if element not in after:
            removed[element] = present(then, child) if then and child.takes(then) else NOTHING
    return changed, removed


def children(value: Any, shape: Shape) -> dict[str, tuple[Any, Shape]]:
    """element -> (the value there, its shape). Items of a list that share their keys are one child, and a leaf."""
    if shape.form in ("struct", "map"):
        found = {}
        for name, inner in value.items():
            element, child = shape.child(name)
            found[element] = (inner, child)
        return found
    assert shape.inner is not None
    items: dict[str, tuple[Any, Shape]] = {}
    for item in value:
        element = shape.item(item)
        items[element] = ([items[element][0], item], LEAF) if element in items else (item, shape.inner)
    return items
