"""Whose request is being answered, for what a commit must know of its writer. None: the server's own doing."""

from __future__ import annotations

from contextvars import ContextVar

from kubesvc.client.transport import User

asking: ContextVar[User | None] = ContextVar("asking", default=None)
