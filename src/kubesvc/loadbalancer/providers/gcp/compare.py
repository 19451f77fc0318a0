"""Whether an object is as wanted: what isn't said in `wanted` may be anything. Pure.

The service answers with whole links where partial ones were sent, adds defaults, and leaves out what is empty.
"""

from __future__ import annotations

from typing import Any

from kubesvc.api.meta import JSON


def matches(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(matches(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        left = list(found or [])
        for value in wanted:
            at = next((i for i, other in enumerate(left) if matches(value, other)), None)
            if at is None:
                return False
            left.pop(at)
        return not left
    if not wanted and not found:
        return True
    return plain(wanted) == plain(found)


def changed(wanted: JSON, found: JSON) -> JSON:
    """The part of `wanted` that `found` isn't."""
    return {key: value for key, value in wanted.items() if not matches(value, found.get(key))}


def plain(value: Any) -> str:
    """A link without its host; an address of a range without the length that means itself."""
    text = str(value)
    at = text.find("projects/")
    return (text[at:] if at >= 0 else text).removesuffix("/32")
