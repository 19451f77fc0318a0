"""Tables: what `kubectl get` prints, as meta.k8s.io/v1 Table objects.

Columns with priority above 0 are for `-o wide`. How each kind is printed is in `printing`, a file a family of kinds;
a kind without one shows its name and age. Source: pkg/printers/internalversion/printers.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver import views
from kubesvc.apiserver.custom import columns
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.printing import access, balancing, certificates, cluster, limits, network, pods, workloads
from kubesvc.apiserver.printing.columns import AGE, NAME, Printer
from kubesvc.apiserver.printing.duration import age

_PRINTERS: dict[tuple[str, str], Printer] = {
    **access.PRINTERS,
    **pods.PRINTERS,
    **workloads.PRINTERS,
    **network.PRINTERS,
    **cluster.PRINTERS,
    **limits.PRINTERS,
    **balancing.PRINTERS,
    **certificates.PRINTERS,
}  # (group, plural) -> its printer


def _name_and_age(tree: JSON, now: datetime) -> list[Any]:
    return [tree["metadata"].get("name", ""), age(tree, now)]


_PLAIN = Printer((NAME, AGE), _name_and_age)


def table(
    kind: Kind, objects: Sequence[JSON], now: datetime, *, resource_version: str, include: str = "Metadata"
) -> JSON:
    """A Table of `objects`, as stored; `include` (None, Metadata or Object) is what a row carries of its own."""
    if isinstance(kind, CustomKind):
        printer = columns.printer(kind)
    else:
        printer = _PRINTERS.get(kind.stored_as or (kind.group, kind.plural), _PLAIN)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": resource_version},
        "columnDefinitions": [column.definition() for column in printer.columns],
        "rows": [_row(kind, printer, tree, now, include) for tree in objects],
    }


def _row(kind: Kind, printer: Printer, tree: JSON, now: datetime, include: str) -> JSON:
    row: JSON = {"cells": printer.cells(tree, now)}
    if printer.conditions is not None and (conditions := printer.conditions(tree)):
        row["conditions"] = conditions
    if include == "Object":
        row["object"] = views.show(kind, tree)
    elif include != "None":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": tree["metadata"],
        }
    return row
