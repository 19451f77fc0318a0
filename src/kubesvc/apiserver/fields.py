"""Fields the schema doesn't know, and values of the wrong type, in upstream's words."""

from __future__ import annotations

from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind


def check_fields(kind: Kind, tree: JSON) -> list[str]:
    """`unknown field "spec.foo"` for each field of `tree` that the schema doesn't have."""
    return []


def check_types(kind: Kind, tree: JSON) -> list[Cause]:
    """A cause for each value that isn't of its field's type."""
    return []
