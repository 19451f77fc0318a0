"""Why a request was let through or not, for the audit log. None: nobody writes it down."""

from __future__ import annotations

from contextvars import ContextVar

notes: ContextVar[dict[str, str] | None] = ContextVar("notes", default=None)
"""Annotation -> value, of the request being answered."""


def decided(allowed: bool, why: str = "") -> None:
    noted = notes.get()
    if noted is not None:
        noted["authorization.k8s.io/decision"] = "allow" if allowed else "forbid"
        noted["authorization.k8s.io/reason"] = why
