"""A custom kind as the rest of the server sees it: a Kind like any other, with what its definition says of it.

Rooms ask `isinstance(kind, CustomKind)` at the few seams where built-in kinds have tables of their own: admission,
field checks, printing, OpenAPI, scale and the stored form.
"""

from __future__ import annotations

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind


class Scale(msgspec.Struct, frozen=True):
    """Where a custom kind keeps what a Scale shows: dotted paths; no `selector`, no selector."""

    replicas: str
    status_replicas: str
    selector: str = ""


_BESIDE = ("schema", "columns", "terminating", "defaults", "rules", "remarks")  # equal kinds may differ in these


class CustomKind(Kind, frozen=True, eq=False):
    """One served version of a definition. `storage` is the version that objects are stored in; `single` is whether no
    object can be stored in another one; `columns` are additionalPrinterColumns."""

    schema: JSON = msgspec.field(default_factory=dict)
    columns: tuple[JSON, ...] = ()
    storage: str = ""
    status: bool = False
    scale: Scale | None = None
    terminating: bool = False
    defaults: bool = False
    rules: bool = False
    list_kind: str = ""
    remarks: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CustomKind):
            return NotImplemented
        return all(getattr(self, f) == getattr(other, f) for f in self.__struct_fields__ if f not in _BESIDE)

    def __hash__(self) -> int:
        return hash((self.group, self.version, self.plural))
