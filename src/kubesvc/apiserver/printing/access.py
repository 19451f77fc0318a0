"""Roles and bindings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.apiserver.printing.columns import AGE, NAME, Column, Printer, at, name_of, wide
from kubesvc.apiserver.printing.duration import age


def _role(found: JSON, now: datetime) -> list[Any]:
    return [name_of(found), found["metadata"].get("creationTimestamp")]


def _binding(found: JSON, now: datetime) -> list[Any]:
    subjects = found.get("subjects") or ()

    def named(kind: str) -> str:
        return ", ".join(s.get("name", "") for s in subjects if s.get("kind") == kind)

    accounts = [f"{s.get('namespace', '')}/{s.get('name', '')}" for s in subjects if s.get("kind") == "ServiceAccount"]
    role = f"{at(found, 'roleRef', 'kind')}/{at(found, 'roleRef', 'name')}"
    return [name_of(found), role, age(found, now), named("User"), named("Group"), ", ".join(accounts)]


_WIDE = wide("Users", "Groups", "ServiceAccounts")

PRINTERS = {
    (kind.group, kind.plural): printer
    for kinds, printer in (
        ((registry.ROLE, registry.CLUSTER_ROLE), Printer((NAME, Column("Created At")), _role)),
        (
            (registry.ROLE_BINDING, registry.CLUSTER_ROLE_BINDING),
            Printer((NAME, Column("Role"), AGE, *_WIDE), _binding),
        ),
    )
    for kind in kinds
}
