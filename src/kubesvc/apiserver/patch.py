"""Patches: one entry point over three formats.

    application/json-patch+json             RFC 6902   a list of operations on paths          (here)
    application/merge-patch+json            RFC 7386   what is named replaces, null deletes   (here)
    application/strategic-merge-patch+json  Kubernetes lists merge by their keys              (`strategic`)

Trees in, a new tree out; the current one is left alone. Server-side apply is not a patch of this kind.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from kubesvc.api import schema
from kubesvc.api.errors import BadRequest, Invalid, TooLarge, UnsupportedMediaType
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver import strategic
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.custom.validation import type_name

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


_MOST_OPERATIONS = 10_000
_MOST_COPIED = 3 << 20  # bytes: each copy may double what is there


class PatchError(Exception):
    """An operation that can't be done; the message says which and why."""


def apply(kind: Kind, current: JSON, patch: bytes, content_type: str) -> JSON:
    """`current` with `patch` applied. Raises BadRequest, Invalid or UnsupportedMediaType."""
    content_type = content_type.partition(";")[0].strip()
    known = (JSON_PATCH, MERGE_PATCH) if isinstance(kind, CustomKind) else (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)
    if content_type not in known:
        accepted = ", ".join((*known, "application/apply-patch+yaml"))
        why = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
        raise UnsupportedMediaType(why)
    try:
        decoded = msgspec.json.decode(patch)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"error decoding patch: {error}") from error
    if content_type == JSON_PATCH:
        return _json_patch(kind, current, decoded)
    if not isinstance(decoded, dict):
        raise BadRequest(f"error decoding patch: expected an object, found {type_name(decoded)}")
    if content_type == MERGE_PATCH:
        merged: JSON = merge(current, decoded)
        return merged
    try:
        return strategic.merge(copy.deepcopy(current), decoded, schema.type_of(kind))
    except strategic.StrategicError as error:
        raise BadRequest(str(error)) from error


def merge(current: Any, patch: Any) -> Any:
    """RFC 7386: an object merges, anything else replaces, null deletes."""
    if not isinstance(patch, dict):
        return patch
    result = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _json_patch(kind: Kind, current: JSON, operations: Any) -> JSON:
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise BadRequest("error decoding patch: a JSON patch is a list of operations")
    if len(operations) > _MOST_OPERATIONS:
        why = f"The allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, got {len(operations)}"
        raise TooLarge(why)
    tree: Any = copy.deepcopy(current)
    copied = 0
    for operation in operations:
        try:
            if operation.get("op") == "copy" and isinstance(source := operation.get("from"), str):
                copied += len(msgspec.json.encode(_get(tree, source)))
                if copied > _MOST_COPIED:
                    raise TooLarge(f"a JSON patch may copy {_MOST_COPIED} bytes at most")
            tree = _operate(tree, operation)
        except PatchError as error:
            raise _failed(kind, current, str(error)) from error
    if not isinstance(tree, dict):
        raise _failed(kind, current, "the patch replaced the whole object by something that is none")
    return tree


def _failed(kind: Kind, current: JSON, why: str) -> Invalid:
    """Upstream answers a JSON patch it can't do with 422, without details: kubectl shows the message only so."""
    name = (current.get("metadata") or {}).get("name", "")
    return Invalid(f'the patch of {kind.kind} "{name}": {why}')


def _operate(tree: Any, operation: JSON) -> Any:
    kind, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str):
        raise PatchError(f"operation {kind!r} has no path")
    match kind:
        case "add":
            return _put(tree, path, _value(operation), insert=True)
        case "replace":
            _get(tree, path)
            return _put(tree, path, _value(operation), insert=False)
        case "remove":
            return _remove(tree, path)
        case "test":
            # Upstream's library takes a missing path for null.
            found = _get(tree, path) if _exists(tree, path) else None
            if found != operation.get("value"):
                raise PatchError(f"testing value {path} failed: test failed")
            return tree
        case "move" | "copy":
            source = operation.get("from")
            if not isinstance(source, str):
                raise PatchError(f"operation {kind!r} has no from")
            value = copy.deepcopy(_get(tree, source))
            return _put(_remove(tree, source) if kind == "move" else tree, path, value, insert=True)
        case _:
            raise PatchError(f"unexpected kind of operation: {kind}")


def _value(operation: JSON) -> Any:
    if "value" not in operation:
        raise PatchError(f"operation {operation['op']!r} at {operation['path']} has no value")
    return copy.deepcopy(operation["value"])


def _steps(path: str) -> list[str]:
    """The tokens of a JSON pointer (RFC 6901)."""
    if path == "":
        return []
    if not path.startswith("/"):
        raise PatchError(f"path {path!r} doesn't start with a slash")
    return [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]


def _index(items: list[Any], step: str, path: str) -> int:
    if not step.isdigit() or (step != "0" and step.startswith("0")) or int(step) >= len(items):
        raise PatchError(f"path {path}: the list has {len(items)} items, so {step!r} is none of them")
    return int(step)


def _get(tree: Any, path: str) -> Any:
    for step in _steps(path):
        if isinstance(tree, list):
            tree = tree[_index(tree, step, path)]
        elif isinstance(tree, dict) and step in tree:
            tree = tree[step]
        else:
            raise PatchError(f"the path {path} doesn't exist")
    return tree


def _exists(tree: Any, path: str) -> bool:
    try:
        _get(tree, path)
    except PatchError:
        return False
    return True


def _put(tree: Any, path: str, value: Any, *, insert: bool) -> Any:
    steps = _steps(path)
    if not steps:
        return value
    parent, last = _get(tree, path[: path.rindex("/")]), steps[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list) and not insert:
        parent[_index(parent, last, path)] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last in ("-", str(len(parent))) else _index(parent, last, path), value)
    else:
        raise PatchError(f"the path {path} goes through a plain value")
    return tree


def _remove(tree: Any, path: str) -> Any:
    _get(tree, path)
    steps = _steps(path)
    if not steps:
        raise PatchError("the whole object can't be removed by a patch")
    parent, last = _get(tree, path[: path.rindex("/")]), steps[-1]
    if isinstance(parent, list):
        del parent[_index(parent, last, path)]
    else:
        del parent[last]
    return tree
