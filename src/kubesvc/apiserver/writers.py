"""Under which name a request's changes go into managedFields."""

from __future__ import annotations

from kubesvc.apiserver.managed.changes import Writer
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request

_LONGEST = 128  # characters of a name that isn't given but taken from the User-Agent


def writer_of(state: State, request: Request, target: Target) -> Writer:
    """By ?fieldManager, else by the program's name: kubectl/v1.36 (linux/amd64) is kubectl."""
    manager = request.query.get("fieldManager") or ""
    if not manager:
        program = request.headers.get("user-agent", "").partition("/")[0]
        manager = "".join(c for c in program if c.isprintable())[:_LONGEST] or "unknown"
    return Writer(manager, state.now(), target.subresource)
