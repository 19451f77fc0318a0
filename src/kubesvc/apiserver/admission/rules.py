"""What a kind's own file contributes to admission; what it leaves out is what holds for every kind."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.context import Context


def _nothing(tree: JSON) -> None:
    return None


def keep_status(new: JSON, old: JSON | None, context: Context) -> None:
    """Spec and status are written apart: a status update keeps the spec, any other keeps the status."""
    if context.subresource == "status" and old is not None:
        if "spec" in old:
            new["spec"] = old["spec"]
        return
    if old is None:
        new.pop("status", None)
    elif "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def _no_causes(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    return []


def _no_warnings(tree: JSON) -> list[str]:
    return []


class Rules(msgspec.Struct, frozen=True):
    """`name` checks metadata.name; `counted` says whether metadata.generation counts changes of the spec."""

    default: Callable[[JSON], None] = _nothing
    prepare: Callable[[JSON, JSON | None, Context], None] = keep_status
    validate: Callable[[JSON, JSON | None, Context], list[Cause]] = _no_causes
    warnings: Callable[[JSON], list[str]] = _no_warnings
    name: Callable[[str], list[str]] = names.subdomain
    counted: bool = False
