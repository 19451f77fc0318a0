"""Sets of fields in the very form they have in metadata.managedFields: a FieldsV1 tree is a set, and stays one.

    {"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:nodePort": {}}}}}

    f:NAME a field     k:{…} the item of a list with these keys     v:… the item of a set     "." the node itself

A node without children is a member; one with children is a member only with ".". Trees are never changed in place, so
that they share their parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

Fields = dict[str, Any]
"""A FieldsV1 tree. The root is never a member: {} is the empty set."""

NOTHING: Fields = {}
"""The node of a member without children."""


def is_set(found: Any) -> bool:
    """Whether what a client sent as FieldsV1 is a tree."""
    return isinstance(found, dict) and all(is_set(node) for node in found.values())


def union(one: Fields, other: Fields) -> Fields:
    """What is in either."""
    if not one or not other:
        return one or other
    found = dict(one)
    for element, node in other.items():
        mine = found.get(element)
        found[element] = node if mine is None else _both(mine, node)
    return found


def _both(one: Fields, other: Fields) -> Fields:
    if not one or not other:
        grown = one or other
        return grown if not grown or "." in grown else {".": NOTHING, **grown}
    return union(one, other)


def difference(one: Fields, other: Fields) -> Fields:
    """What is in `one` alone."""
    found = {}
    for element, node in one.items():
        theirs = other.get(element)
        rest = node if theirs is None else _without(node, theirs)
        if rest is not None:
            found[element] = rest
    return found


def _without(node: Fields, other: Fields) -> Fields | None:
    member = _member(node) and not _member(other)
    children = difference({e: n for e, n in node.items() if e != "."}, other)
    if children:
        return {".": NOTHING, **children} if member else children
    return NOTHING if member else None


def intersection(one: Fields, other: Fields) -> Fields:
    """What is in both."""
    found = {}
    for element, node in one.items():
        theirs = other.get(element)
        if element != "." and theirs is not None and (common := _common(node, theirs)) is not None:
            found[element] = common
    return found


def _common(one: Fields, other: Fields) -> Fields | None:
    member = _member(one) and _member(other)
    children = intersection(one, other)
    if children:
        return {".": NOTHING, **children} if member else children
    return NOTHING if member else None


def _member(node: Fields) -> bool:
    return not node or "." in node


def paths(fields: Fields, prefix: str = "") -> Iterator[str]:
    """Each member as upstream writes it: .spec.ports[port=80,protocol="TCP"].nodePort, in upstream's order."""
    elements = sorted(element for element in fields if element != ".")
    for element in elements:
        if _member(fields[element]):
            yield prefix + text_of(element)
    for element in elements:
        yield from paths(fields[element], prefix + text_of(element))


def text_of(element: str) -> str:
    """One step of a path."""
    kind, _, rest = element.partition(":")
    match kind:
        case "f":
            return f".{rest}"
        case "k":
            keys = msgspec.json.decode(rest)
            return "[" + ",".join(f"{key}={_json(value)}" for key, value in sorted(keys.items())) + "]"
        case "v":
            return f"[={rest}]"
        case _:
            return f"[{rest}]"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
