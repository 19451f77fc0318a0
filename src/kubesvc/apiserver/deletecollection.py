"""DELETE of a collection: each selected object as if it were deleted alone."""

from __future__ import annotations

from kubesvc.api.errors import NotFound
from kubesvc.apiserver import body, encode, selection, stored
from kubesvc.apiserver.delete import remove
from kubesvc.apiserver.list import check_options, read_page
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response


async def deletecollection(state: State, request: Request, target: Target) -> Response:
    """The objects that were asked to go, as a list: `limit` and `continue` mean those of that page alone. Stops at the
    first that is refused."""
    options = body.delete_options(request)
    selected = selection.parse(target.kind, request.query)
    check_options(request.query, watch=False)
    page, token = await read_page(state, request, target, selected)
    for item in page.items:
        namespace, name = stored.name_of(item.key)
        try:
            await remove(state, Target(target.kind, namespace, name), options)
        except NotFound:  # somebody else was faster
            continue
    return encode.many(state, request, target.kind, page, token)
