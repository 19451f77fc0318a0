"""A document of Azure's with many Services' shares in it: what both such documents need. Pure.

Ours is what has a name that begins with `kubesvc-`: everything else in the document stays as it was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from kubesvc.api.meta import JSON

OURS = "kubesvc-"


class Merged(msgspec.Struct, frozen=True):
    """`document`: to be written, None: to be deleted. `refused`: service's uid -> (reason, message)."""

    document: JSON | None
    changed: bool
    refused: Mapping[str, tuple[str, str]] = {}
    freed: bool = False
    """Something was given up that another Service may wait for."""


def prefix(uid: str) -> str:
    """How the names of what a Service has begin."""
    return f"{OURS}{uid}-"


def covers(there: object, wanted: object) -> bool:
    """Whether `there` has all that `wanted` says; Azure adds fields of its own, and writes ids in its own case."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(k in there and covers(there[k], v) for k, v in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(there, Sequence) or len(there) != len(wanted):
            return False
        return all(covers(a, b) for a, b in zip(_sorted(there), _sorted(wanted), strict=True))
    if isinstance(wanted, str) and isinstance(there, str):
        return there.casefold() == wanted.casefold()
    return there == wanted


def _sorted(items: Sequence[object]) -> list[object]:
    return sorted(items, key=lambda i: str(i.get("name", i.get("id", i)) if isinstance(i, Mapping) else i).casefold())


def same(there: Sequence[JSON], wanted: Sequence[JSON]) -> bool:
    """Whether two lists of named things are the same for us."""
    found = {item["name"]: item for item in there}
    return found.keys() == {item["name"] for item in wanted} and all(
        covers(found[item["name"]], item) for item in wanted
    )
