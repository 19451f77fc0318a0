"""DELETE of one object: at once, or marked for deletion while finalizers, a grace period or a namespace's content
keep it.

    pod on a node ──DELETE──► deletionTimestamp, deletionGracePeriodSeconds ──its node: DELETE with grace 0──► gone
    namespace     ──DELETE──► Terminating ──its controller empties it, PUT finalize──► gone
    finalizers    ──DELETE──► deletionTimestamp ──the last finalizer is taken away──► gone
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from kubesvc.api.errors import Forbidden, conflict
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.registry import IP_ADDRESS, NAMESPACE, POD, SERVICE, SERVICE_CIDR
from kubesvc.apiserver import body, encode, stored
from kubesvc.apiserver.admission.networking import terminating
from kubesvc.apiserver.body import DeleteOptions
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.update import STALE, is_done
from kubesvc.apiserver.webhooks import asking
from kubesvc.apiserver.writing import ATTEMPTS, Raced, commit
from kubesvc.client.transport import Request, Response
from kubesvc.store.protocol import Versioned

_PERMANENT = ("default", "kube-system", "kube-public")
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"  # finalizers the garbage collector takes away


async def delete(state: State, request: Request, target: Target) -> Response:
    """A Status when the object is gone, the object itself while it lives on. Raises NotFound, Conflict, Forbidden."""
    options = body.delete_options(request)
    gone, item = await remove(state, target, options)
    if not gone:
        return encode.one(state, request, target.kind, item)
    kind = target.kind
    details: JSON = {"name": target.name, "kind": kind.plural, "uid": stored.tree_of(item)["metadata"]["uid"]}
    if kind.group:
        details["group"] = kind.group
    return encode.success(details)


async def remove(
    state: State,
    target: Target,
    options: DeleteOptions,
    *,
    asked: bool = False,
    explain: Callable[[JSON], None] = lambda tree: None,
) -> tuple[bool, Versioned]:
    """(whether it is gone, the object as it last was). `asked`: webhooks have been, about what leads to it. `explain`
    writes into the object why it goes."""
    dry_run = bool(options.dry_run)
    for _ in range(ATTEMPTS):
        current = await state.read(target)
        old = stored.tree_of(current, target.kind)
        _check_preconditions(target, old, options)
        await _refuse_in_use(state, target, old)
        if not asked and asking.concerns(state, target.kind):
            await asking.deleting(state, target, old, dry_run=dry_run)
        new = _marked(state, target, stored.copy(old), options)
        explain(new)
        try:
            if is_done(target, new):
                await commit(state, target, None, current, dry_run=dry_run)
                return True, current
            if new == old:
                return False, current
            item = await commit(state, target, new, current, dry_run=dry_run)
        except Raced:
            continue
        assert item is not None
        return False, item
    raise conflict(target.kind.resource, target.name, STALE)


def _check_preconditions(target: Target, tree: JSON, options: DeleteOptions) -> None:
    wanted, metadata = options.preconditions, tree["metadata"]
    if wanted.uid and wanted.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({wanted.uid}) does not match the UID in record ({metadata['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise conflict(target.kind.kind, target.name, why)
    if wanted.resource_version and wanted.resource_version != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({wanted.resource_version}) does not match the ResourceVersion "
            f"in record ({metadata['resourceVersion']}). The object might have been modified"
        )
        raise conflict(target.kind.kind, target.name, why)


async def _refuse_in_use(state: State, target: Target, tree: JSON) -> None:
    if target.kind is NAMESPACE and target.name in _PERMANENT:
        raise Forbidden(f'namespaces "{target.name}" is forbidden: this namespace may not be deleted')
    if target.kind is IP_ADDRESS:
        parent = (tree.get("spec") or {}).get("parentRef") or {}
        namespace, name = parent.get("namespace") or "", parent.get("name") or ""
        holder = await state.store.get(stored.key(SERVICE, namespace, name))
        if parent.get("resource") == SERVICE.plural and holder and target.name in _addresses(holder):
            raise Forbidden(
                f'{target.kind.resource} "{target.name}" is forbidden: it is the claim of services {namespace}/{name}: '
                "delete that, and the address is free"
            )


def _addresses(service: Versioned) -> list[str]:
    spec = stored.tree_of(service)["spec"]
    return [*(spec.get("clusterIPs") or ()), spec.get("clusterIP", "")]


def _marked(state: State, target: Target, tree: JSON, options: DeleteOptions) -> JSON:
    """`tree` as it is once it has been asked to go."""
    metadata = tree["metadata"]
    grace = _grace(target, tree, options)
    finalizers = [f for f in metadata.get("finalizers") or [] if f not in (_FOREGROUND, _ORPHAN)]
    policy = options.propagation_policy or ("Orphan" if options.orphan_dependents else "")
    if policy == "Foreground":
        finalizers.append(_FOREGROUND)
    elif policy == "Orphan":
        finalizers.append(_ORPHAN)
    elif not policy:
        finalizers = list(metadata.get("finalizers") or [])
    metadata.pop("finalizers", None)
    if finalizers:
        metadata["finalizers"] = finalizers
    before = metadata.get("deletionGracePeriodSeconds")
    if not metadata.get("deletionTimestamp") or (before is not None and grace < before):
        metadata["deletionTimestamp"] = format_time(state.clock() + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
        if target.kind is SERVICE_CIDR:
            terminating(tree, state.clock())
    if target.kind is NAMESPACE:
        tree.setdefault("status", {})["phase"] = "Terminating"
    return tree


def _grace(target: Target, tree: JSON, options: DeleteOptions) -> int:
    """Seconds the object has to go in order: only a pod that a node runs has any."""
    if target.kind is not POD:
        return 0
    spec, status = tree.get("spec") or {}, tree.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.grace_period_seconds
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds", 30)
    return asked if asked >= 0 else 1  # a negative one is upstream's old way to say "at once, but in order"
