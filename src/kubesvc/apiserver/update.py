"""PUT to an object or its status, and the read-change-write loop that every other change of an object goes through."""

from __future__ import annotations

from collections.abc import Callable

from kubesvc.api.errors import AlreadyExists, BadRequest, Conflict, NotFound, conflict
from kubesvc.api.meta import JSON
from kubesvc.api.registry import SECRET
from kubesvc.apiserver import accounts, admission, body, encode, stored
from kubesvc.apiserver.access.check import require
from kubesvc.apiserver.create import create
from kubesvc.apiserver.managed.changes import Writer, record_update
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.warnings import warn
from kubesvc.apiserver.webhooks import asking
from kubesvc.apiserver.writers import writer_of
from kubesvc.apiserver.writing import ATTEMPTS, Raced, admit, commit
from kubesvc.client.transport import Request, Response
from kubesvc.store.protocol import Versioned

Change = Callable[[JSON], JSON]
"""From the object as it is (not to be changed) to the object as it should be."""

STALE = "the object has been modified; please apply your changes to the latest version and try again"

# What only the server writes: kept from the stored object whatever the client sends.
_OWNED = ("name", "namespace", "generateName", "uid", "creationTimestamp", "deletionTimestamp",
          "deletionGracePeriodSeconds")  # fmt: skip


async def update(state: State, request: Request, target: Target) -> Response:
    """Raises NotFound, Conflict (a stale resourceVersion), Invalid. Without a resourceVersion the last writer wins.
    Of a few kinds, as upstream, it makes what isn't there, 201."""
    options = body.write_options(request)
    tree = body.read_object(request, target)
    name = tree["metadata"].setdefault("name", target.name)
    if name != target.name:
        raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
    warnings = body.check_fields(target.kind, tree, options, request)
    writer = writer_of(state, request, target)
    creates = target.kind.put_creates and not target.subresource
    for _ in range(ATTEMPTS):
        if creates and await state.store.get(key_of(target)) is None:
            await require(state, request, target, "create")
            try:
                return await create(state, request, Target(target.kind, target.namespace))
            except AlreadyExists:  # since we looked: then it is an update
                continue
        try:
            item = await modify(
                state,
                target,
                lambda _: body.read_known(request, target, options)[0],
                writer=writer,
                dry_run=options.dry_run,
            )
        except NotFound:
            if not creates:
                raise
        else:
            warn(warnings + admission.warnings(target.kind, tree))
            return encode.one(state, request, target.kind, item)
    raise conflict(target.kind.resource, target.name, STALE)


async def modify(
    state: State,
    target: Target,
    change: Change,
    *,
    writer: Writer | None = None,
    dry_run: bool = False,
    admitted: bool = True,
    view: asking.View | None = None,
) -> Versioned:
    """Read, change, admit, commit; again when somebody was faster and the change isn't tied to one revision.

    A change that leaves everything as it was writes nothing. One that takes the last finalizer from an object being
    deleted deletes it. What is changed is `writer`'s from then on; None: the change itself says so, or it is nobody's.
    `admitted` is False for changes that are the server's own; `view` is what webhooks are shown, where that isn't the
    object. Raises NotFound, Conflict, Invalid.
    """
    for _ in range(ATTEMPTS):
        current = await state.read(target)
        old = stored.tree_of(current, target.kind)
        new = change(old)
        wanted = new.setdefault("metadata", {}).get("resourceVersion") or ""
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise conflict(target.kind.resource, target.name, STALE)
        _keep_owned(target, new, old)
        if target.kind is SECRET and admitted:
            await accounts.fill_secret(state, target.namespace, new)
        if asked := admitted and asking.concerns(state, target.kind):
            await asking.mutate(state, target, new, old, dry_run=dry_run, view=view)
        if admitted:
            admit(target.kind, new, old, state.context(target.subresource))
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old:
            return current
        if asked:
            await asking.validate(state, target, new, old, dry_run=dry_run, view=view)
        if writer is not None:
            record_update(target.kind, old, new, writer)
        try:
            if is_done(target, new):
                await commit(state, target, None, current, dry_run=dry_run)
                return Versioned(current.key, stored.encode(target.kind, new), current.revision)
            item = await commit(state, target, new, current, dry_run=dry_run)
        except Raced:
            continue
        assert item is not None
        return item
    raise conflict(target.kind.resource, target.name, STALE)


def key_of(target: Target) -> str:
    return stored.key(target.kind, target.namespace, target.name)


def is_done(target: Target, tree: JSON) -> bool:
    """Whether an object being deleted has nothing left to wait for."""
    metadata = tree["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if (tree.get("spec") or {}).get("finalizers") and target.kind.plural == "namespaces":
        return False
    return not metadata.get("deletionGracePeriodSeconds")


def _keep_owned(target: Target, new: JSON, old: JSON) -> None:
    mine, theirs = new["metadata"], old["metadata"]
    uid = mine.get("uid")
    if uid and uid != theirs["uid"]:
        raise uid_conflict(target, uid, theirs["uid"])
    for field in _OWNED:
        if field in theirs:
            mine[field] = theirs[field]
        else:
            mine.pop(field, None)
    mine.pop("selfLink", None)
    if not mine.get("managedFields") and (kept := theirs.get("managedFields")):  # not known to the client: no change
        mine["managedFields"] = kept


def uid_conflict(target: Target, wanted: str, found: str) -> Conflict:
    why = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    return conflict(target.kind.resource, target.name, why)
