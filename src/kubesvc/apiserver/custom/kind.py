"""A custom kind as the rest of the server sees it: a Kind like any other, with what its definition says of it.

Rooms ask `isinstance(kind, CustomKind)` at the few seams where built-in kinds have tables of their own: admission,
field checks, printing, OpenAPI, scale and the stored form.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a custom kind keeps what a Scale shows: dotted paths; no `selector`, no selector."""

    replicas: str
    status_replicas: str
    selector: str = ""


@dataclass(frozen=True, slots=True)
class CustomKind(Kind):
    """One served version of a definition. `storage` is the version that objects are stored in; `single` is whether no
    object can be stored in another one; `columns` are additionalPrinterColumns."""

    schema: JSON = field(default_factory=dict, compare=False)
    columns: tuple[JSON, ...] = field(default=(), compare=False)
    storage: str = ""
    status: bool = False
    scale: Scale | None = None
    terminating: bool = field(default=False, compare=False)
    defaults: bool = field(default=False, compare=False)
    rules: bool = field(default=False, compare=False)
    list_kind: str = ""
    remarks: tuple[str, ...] = field(default=(), compare=False)
