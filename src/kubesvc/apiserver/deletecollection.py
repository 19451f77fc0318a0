"""DELETE of a collection: each selected object as if it were deleted alone."""

from __future__ import annotations

from kubesvc.api.errors import NotFound
from kubesvc.apiserver import body, encode, selection, stored
from kubesvc.apiserver.delete import remove
from kubesvc.apiserver.list import read
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response


async def deletecollection(state: State, request: Request, target: Target) -> Response:
    """The objects that were asked to go, as a list. Stops at the first that is refused."""
    options = body.delete_options(request)
    selected = selection.parse(target.kind, request.query)
    page = await read(state, target, selected)
    for item in page.items:
        namespace, name = stored.name_of(item.key)
        try:
            await remove(state, Target(target.kind, namespace, name), options)
        except NotFound:  # somebody else was faster
            continue
    return encode.many(state, request, target.kind, page)
