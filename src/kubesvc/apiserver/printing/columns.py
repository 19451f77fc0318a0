"""A column, a printer, and the cells that several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from kubesvc.api.meta import JSON

NONE = "<none>"
MAX_SHOWN = 3
"""Endpoints shown before the rest is only counted."""


class Column(msgspec.Struct, frozen=True):
    name: str
    type: str = "string"
    priority: int = 0  # above 0: only with -o wide
    format: str = ""
    description: str = ""

    def definition(self) -> JSON:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


NAME = Column("Name", format="name", description="The object's name, unique among its kind in its namespace.")
AGE = Column("Age", description="The time since it was created.")


class Printer(msgspec.Struct, frozen=True):
    """`cells` gives a value for each column; `conditions` what is special about a row (a finished pod)."""

    columns: tuple[Column, ...]
    cells: Callable[[JSON, datetime], list[Any]]
    conditions: Callable[[JSON], list[JSON]] | None = None


def wide(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, priority=1) for name in names)


def at(tree: Any, *path: str) -> Any:
    """The value at `path`, or None where the tree ends before."""
    for name in path:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(name)
    return tree


def name_of(tree: JSON) -> str:
    found: str = tree["metadata"].get("name", "")
    return found


def format_labels(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items())) if labels else NONE


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "", "DoesNotExist": "!"}


def format_selector(selector: JSON | None) -> str:
    """A LabelSelector in the short form that `-l` takes."""
    terms = {k: f"{k}={v}" for k, v in (at(selector, "matchLabels") or {}).items()}
    for term in at(selector, "matchExpressions") or ():
        key, operator = term.get("key", ""), _OPERATORS.get(term.get("operator", ""), "")
        if operator in ("in", "notin"):
            terms[key] = f"{key} {operator} ({','.join(sorted(term.get('values') or ()))})"
        else:
            terms[key] = f"{operator}{key}"
    return ",".join(terms[k] for k in sorted(terms)) or NONE


def containers_and_images(template: JSON | None) -> list[str]:
    containers = at(template, "spec", "containers") or []
    return [",".join(c.get(field, "") for c in containers) or NONE for field in ("name", "image")]


def shorten(items: list[str], empty: str) -> str:
    """The first few of a list and how many more there are."""
    if len(items) > MAX_SHOWN:
        return f"{','.join(items[:MAX_SHOWN])} + {len(items) - MAX_SHOWN} more..."
    return ",".join(items) or empty
