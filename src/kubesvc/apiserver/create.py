"""POST to a collection."""

from __future__ import annotations

from kubesvc.api.errors import AlreadyExists, BadRequest, Cause, ServiceUnavailable, already_exists
from kubesvc.api.meta import JSON
from kubesvc.api.registry import NAMESPACE, PERSISTENT_VOLUME_CLAIM, POD, SECRET
from kubesvc.apiserver import accounts, admission, body, encode, storageclasses, stored
from kubesvc.apiserver.managed.changes import Writer, left_out, record_create
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.warnings import warn
from kubesvc.apiserver.webhooks import asking
from kubesvc.apiserver.writers import writer_of
from kubesvc.apiserver.writing import ATTEMPTS, Raced, admit, commit, open_namespace, refusal
from kubesvc.client.transport import Request, Response
from kubesvc.store.protocol import Versioned

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: nothing rude is spelled
_PREFIX_BYTES = 63 - 5


async def create(state: State, request: Request, target: Target) -> Response:
    """The object as stored, 201. Raises AlreadyExists, Invalid, NotFound (its namespace), Forbidden."""
    if target.kind.namespaced and not target.namespace:
        raise BadRequest("an empty namespace may not be set during creation")
    options = body.write_options(request)
    tree, warnings = body.read_known(request, target, options)
    writer = writer_of(state, request, target)
    for _ in range(ATTEMPTS):
        generated = not tree["metadata"].get("name")
        try:
            item = await attempt(state, target, tree, options.dry_run, writer)
        except Raced as raced:
            if raced.own and not generated:
                raise already_exists(target.kind.resource, tree["metadata"]["name"]) from raced
            tree, _ = body.read_known(request, target, options)
        else:
            warn(warnings + admission.warnings(target.kind, tree))
            return encode.one(state, request, target.kind, item, 201)
    if generated:
        raise _exhausted(target, tree)
    raise ServiceUnavailable("too many others were faster; try again", retry_after=1)


async def attempt(state: State, target: Target, tree: JSON, dry_run: bool, writer: Writer | None = None) -> Versioned:
    """Admit and commit `tree`, all of it set by `writer`; None: its managedFields say already. Raises Raced."""
    kind, metadata = target.kind, tree["metadata"]
    if metadata.get("resourceVersion"):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    if not metadata.get("name"):
        metadata["name"] = _generate(state, target, tree)
    checks = await open_namespace(state, target, metadata["name"])
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        metadata.pop(field, None)
    metadata["uid"] = state.new_uid()
    metadata["creationTimestamp"] = state.now()
    chosen = left_out(kind, tree)
    added = await accounts.admit_pod(state, target.namespace, tree) if kind is POD else []
    if kind is SECRET:
        await accounts.fill_secret(state, target.namespace, tree)
    if kind is PERSISTENT_VOLUME_CLAIM:
        await storageclasses.fill_claim(state, tree)
    if asked := asking.concerns(state, kind):
        await asking.mutate(state, target, tree, None, dry_run=dry_run)
    admit(kind, tree, None, state.context())
    if asked:
        await asking.validate(state, target, tree, None, dry_run=dry_run)
    if writer is not None:
        record_create(kind, tree, writer, chosen, added)
    if await state.store.get(stored.key(kind, target.namespace, metadata["name"])) is not None:
        raise Raced(own=True)
    more = await accounts.furniture(state, metadata["name"]) if kind is NAMESPACE else ()
    item = await commit(state, target, tree, None, checks=checks, more=more, dry_run=dry_run)
    assert item is not None
    return item


def _generate(state: State, target: Target, tree: JSON) -> str:
    prefix = tree["metadata"].get("generateName") or ""
    if not prefix:
        cause = Cause(
            reason="FieldValueRequired",
            message="Required value: name or generateName is required",
            field="metadata.name",
        )
        raise refusal(target.kind, tree, [cause])
    suffix = "".join(state.random.choice(_SUFFIX) for _ in range(5))
    return f"{prefix[:_PREFIX_BYTES]}{suffix}"


def _exhausted(target: Target, tree: JSON) -> AlreadyExists:
    error = already_exists(target.kind.resource, tree["metadata"].get("generateName", ""))
    error.retry_after = 1
    return error
