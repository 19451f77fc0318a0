"""One object merged into another by the schema, and pruned of what nobody claims any more.

Structs and maps merge by name, lists by their keys, sets by their values; everything else is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubesvc.api.meta import JSON
from kubesvc.apiserver.managed.sets import Fields
from kubesvc.apiserver.managed.shapes import LEAF, Shape


def merge(live: Any, config: Any, shape: Shape) -> Any:
    """`live` with what `config` says; neither is changed. A null in `config` takes the field away."""
    if not (shape.takes(live) and shape.takes(config)):
        return config
    if shape.form in ("keyed", "set"):
        return _merge_list(live, config, shape)
    found = dict(live)
    for name, value in config.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merge(live[name], value, shape.child(name)[1]) if name in live else value
    return found


def _merge_list(live: list[Any], config: list[Any], shape: Shape) -> list[Any]:
    """The order is that of `config`; what it doesn't name stays behind the neighbour it had."""
    inner = shape.inner or LEAF
    places: dict[str, list[Any]] = {"": []}  # element -> what stands there: an item, and those that stay behind it
    for item in config:
        places[shape.item(item)] = [item]
    behind = ""
    for item in live:
        element = shape.item(item)
        if element not in places:
            places[behind].append(item)
        else:
            behind = element
            if shape.form == "keyed":
                places[element][0] = merge(item, places[element][0], inner)
    return [item for place in places.values() for item in place]


def prune(value: Any, shape: Shape, lost: Fields, kept: Fields) -> Any:
    """`value` without what `lost` has as a member and `kept` not at all. With a field or an item goes all that is in
    it, unless somebody keeps a part of that."""
    if shape.form in ("keyed", "set"):
        inner = shape.inner or LEAF
        after = (_pruned(item, shape.item(item), inner, lost, kept, _is_member) for item in value)
        return [_with_keys(item, was, shape) for item, was in zip(after, value, strict=True) if item is not _GONE]
    found: JSON = {}
    for name, item in value.items():
        element, child = shape.child(name)
        goes = _is_member if shape.form == "map" else _never if name in shape.always else _at_all
        rest = _pruned(item, element, child, lost, kept, goes)
        if rest is not _GONE:
            found[name] = rest
    return found


_GONE = object()


def _with_keys(item: Any, was: Any, shape: Shape) -> Any:
    """An item that stays, stays the one it was."""
    return {k: was[k] for k in shape.keys if k in was} | item if shape.form == "keyed" else item


def _pruned(item: Any, element: str, child: Shape, lost: Fields, kept: Fields, goes: Callable[[Fields], bool]) -> Any:
    node = lost.get(element)
    if node is None:
        return item
    keep = kept.get(element)
    if keep is None and goes(node):
        return _GONE
    return prune(item, child, node, keep or {}) if node and child.takes(item) else item


def _is_member(node: Fields) -> bool:
    return not node or "." in node


def _at_all(node: Fields) -> bool:
    return True


def _never(node: Fields) -> bool:
    return False
