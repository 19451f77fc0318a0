"""GET of one object."""

from __future__ import annotations

from kubesvc.apiserver import encode
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response


async def get(state: State, request: Request, target: Target) -> Response:
    """The object as of now, whatever resourceVersion was asked for: it is never older. Raises NotFound."""
    return encode.one(state, request, target.kind, await state.read(target))
