"""PATCH with application/apply-patch+yaml: server-side apply. The algorithm is in `managed`, here what surrounds it."""

from __future__ import annotations

from kubesvc.api.errors import BadRequest, Conflict, ServiceUnavailable
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver import admission, body, encode, stored
from kubesvc.apiserver.access.check import require
from kubesvc.apiserver.admission.causes import required
from kubesvc.apiserver.body import WriteOptions
from kubesvc.apiserver.create import attempt
from kubesvc.apiserver.managed.apply import Conflicts, apply
from kubesvc.apiserver.managed.changes import Writer
from kubesvc.apiserver.managed.typed import Duplicate
from kubesvc.apiserver.routing import Target, is_true
from kubesvc.apiserver.state import State
from kubesvc.apiserver.update import Change, key_of, modify
from kubesvc.apiserver.warnings import warn
from kubesvc.apiserver.writers import writer_of
from kubesvc.apiserver.writing import ATTEMPTS, Raced
from kubesvc.client.transport import Request, Response

APPLY_PATCH = "application/apply-patch+yaml"


async def applying(state: State, request: Request, target: Target) -> Response:
    """The object as applied, 201 where there was none. Raises BadRequest, Invalid, and Conflict, which names the
    fields that others own."""
    options = body.write_options(request)
    config, warnings = configuration(request, target, options)
    warnings += admission.warnings(target.kind, stored.copy(config))
    change = applier(request, target.kind, config, writer_of(state, request, target))

    for _ in range(ATTEMPTS):
        if target.subresource or await state.store.get(key_of(target)) is not None:
            item, status = await modify(state, target, change, dry_run=options.dry_run), 200
        else:
            await require(state, request, target, "create")
            try:
                item, status = await attempt(state, target, change({}), options.dry_run), 201
            except Raced:
                continue
        warn(warnings)
        return encode.one(state, request, target.kind, item, status)
    raise ServiceUnavailable("too many others were faster; try again", retry_after=1)


def applier(request: Request, kind: Kind, config: JSON, writer: Writer) -> Change:
    """The change that applies `config`, of `kind`. It raises BadRequest, and Conflict as `applying` does."""
    force = is_true(request.query, "force")

    def change(live: JSON) -> JSON:
        try:
            return stored.copy(apply(kind, live, config, writer, force=force))
        except Conflicts as conflicts:
            raise _conflict(conflicts) from None
        except Duplicate as twice:
            raise BadRequest(f"failed to create typed patch object: {twice}") from None

    return change


def configuration(request: Request, target: Target, options: WriteOptions) -> tuple[JSON, list[str]]:
    """What is applied, and warnings about its fields. Raises BadRequest where it isn't this object's, and Invalid where
    nobody says who applies it."""
    if not request.query.get("fieldManager"):
        body.refuse_options("PatchOptions", [required("fieldManager", "is required for apply patch")])
    config = body.read_object(request, target)
    metadata = config["metadata"]
    if metadata.get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    if metadata.setdefault("name", target.name) != target.name:
        raise BadRequest(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
        )
    return config, body.check_fields(target.kind, config, options, request)


def _conflict(conflicts: Conflicts) -> Conflict:
    """In upstream's words: kubectl shows them, and people search for them."""
    found = conflicts.items()
    causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": path}
              for owner, path in found]  # fmt: skip
    if len(found) == 1:
        owner, path = found[0]
        message = f"Apply failed with 1 conflict: conflict with {owner}: {path}"
    else:
        lines: list[str] = []
        for owner, path in found:
            if (heading := f"conflicts with {owner}:") not in lines:
                lines.append(heading)
            lines.append(f"- {path}")
        message = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
    return Conflict(message, details={"causes": causes})
