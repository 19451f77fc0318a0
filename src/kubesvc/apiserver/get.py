"""GET of one object."""

from __future__ import annotations

from kubesvc.apiserver import encode
from kubesvc.apiserver.list import refuse_future, revision_of
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response


async def get(state: State, request: Request, target: Target) -> Response:
    """The object as of now, whatever resourceVersion was asked for: it is never older. Raises NotFound, Timeout (a
    revision that isn't there yet)."""
    if text := request.query.get("resourceVersion"):
        await refuse_future(state, revision_of(text))
    return encode.one(state, request, target.kind, await state.read(target))
