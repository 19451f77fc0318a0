"""PATCH of an object or its status. The algorithms are in `patch`; here is what surrounds them."""

from __future__ import annotations

from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import JSON
from kubesvc.apiserver import admission, body, encode, patch, stored
from kubesvc.apiserver.applying import APPLY_PATCH, applying
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.update import modify
from kubesvc.apiserver.warnings import warn
from kubesvc.apiserver.writers import writer_of
from kubesvc.client.transport import Request, Response


async def patching(state: State, request: Request, target: Target) -> Response:
    """Raises NotFound, Conflict (only where the patch names a resourceVersion), Invalid, UnsupportedMediaType."""
    options = body.write_options(request)
    media = request.headers.get("content-type", "").partition(";")[0].strip()
    if media == APPLY_PATCH:
        return await applying(state, request, target)
    warnings: list[str] = []

    def change(old: JSON) -> JSON:
        new = patch.apply(target.kind, stored.copy(old), request.body, media)
        body.check_shape(target.kind, new)
        if new["metadata"].get("name", target.name) != target.name:
            raise BadRequest(
                f"the name of the object ({new['metadata']['name']}) does not match the name on the URL ({target.name})"
            )
        warnings[:] = body.check_fields(target.kind, new, options, request)
        warnings.extend(admission.warnings(target.kind, new))
        return new

    item = await modify(state, target, change, writer=writer_of(state, request, target), dry_run=options.dry_run)
    warn(warnings)
    return encode.one(state, request, target.kind, item)
