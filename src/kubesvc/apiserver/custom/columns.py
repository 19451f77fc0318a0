"""How `kubectl get` prints custom resources: the definition's additionalPrinterColumns, or their age.

Source: apiextensions-apiserver pkg/registry/customresource/tableconvertor.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.apiserver.custom import jsonpath
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.printing.columns import AGE, NAME, Column, Printer
from kubesvc.apiserver.printing.duration import age, since


def printer(kind: CustomKind) -> Printer:
    if not kind.columns:
        return Printer((NAME, AGE), lambda tree, now: [tree["metadata"].get("name", ""), age(tree, now)])
    columns = tuple(
        Column(c["name"], c["type"], c.get("priority") or 0, c.get("format") or "", c.get("description") or "")
        for c in kind.columns
    )

    def cells(tree: JSON, now: datetime) -> list[Any]:
        return [tree["metadata"].get("name", ""), *(_cell(column, tree, now) for column in kind.columns)]

    return Printer((NAME, *columns), cells)


def _cell(column: JSON, tree: JSON, now: datetime) -> Any:
    try:
        found = jsonpath.values(column["jsonPath"], tree)
    except ValueError:
        return None
    value = found[0] if found else None
    if value is None:
        return None
    match column["type"]:
        case "string":
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
        case "date":
            return since(value, now) if isinstance(value, str) else None
        case "integer":
            return int(value) if isinstance(value, (int, float)) else None
        case "number":
            return float(value) if isinstance(value, (int, float)) else None
    return value if isinstance(value, bool) else None
