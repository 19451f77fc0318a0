"""The kinds of complaint about a field, worded as upstream words them.

    Required value · Invalid value: V: why · Duplicate value: V · Forbidden: why · Unsupported value: V: supported … ·
    Not found: V · Too long · Too many

Source: apimachinery pkg/util/validation/field/errors.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from kubesvc.api.errors import Cause

IMMUTABLE = "field is immutable"


def shown(value: Any) -> str:
    """A value as messages show it: compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def required(path: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value: {why}" if why else "Required value", path)


def invalid(path: str, value: Any, why: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {shown(value)}: {why}", path)


def invalid_as_whole(path: str, why: str) -> Cause:
    """Of something too large to show."""
    return Cause("FieldValueInvalid", f"Invalid value: {why}", path)


def duplicate(path: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {shown(value)}", path)


def forbidden(path: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", path)


def not_found(path: str, value: Any) -> Cause:
    return Cause("FieldValueNotFound", f"Not found: {shown(value)}", path)


def not_supported(path: str, value: Any, supported: Iterable[str]) -> Cause:
    """`supported` is listed in the order given; upstream sorts its sets."""
    listed = ", ".join(shown(v) for v in supported)
    return Cause("FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {listed}", path)


def too_long(path: str, limit: int) -> Cause:
    """`limit` in bytes."""
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", path)


def too_many(path: str, found: int, limit: int) -> Cause:
    items = "item" if limit == 1 else "items"
    return Cause("FieldValueTooMany", f"Too many: {found}: must have at most {limit} {items}", path)
