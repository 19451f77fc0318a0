"""One object into the store, together with the claims it makes: an IPAddress object or a node port key each.

    tree ─► default ─► prepare ─► validate ─► claims ─► commit( object, claims | namespace still as seen )

What is lost in a race is either tried again by the verb (`Raced`) or the client's error.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from kubesvc.api.errors import ApiError, Cause, Forbidden, InternalError, TooLarge, invalid, not_found
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CERTIFICATES, CLUSTER_ROLE, IP_ADDRESS, NAMESPACE, NODE, RBAC, SERVICE, Kind
from kubesvc.apiserver import admission, stored
from kubesvc.apiserver.access import check
from kubesvc.apiserver.access.asking import asking
from kubesvc.apiserver.admission import ClaimChange, Context
from kubesvc.apiserver.admission.service_addresses import adds_external_ips
from kubesvc.apiserver.hints import NODE_PORTS
from kubesvc.apiserver.ranges import read_ranges
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.webhooks import register
from kubesvc.store.protocol import Check, PreconditionFailed, Versioned, Write

_EXTERNAL_IPS = (  # the first sentence is upstream's
    "Use of external IPs is denied by admission control. Whoever sets spec.externalIPs takes the traffic of those "
    "addresses (CVE-2020-8554); where all who may write Services are trusted, allow it with "
    "`kubesvc up --allow-external-ips`, or use type LoadBalancer"
)
ATTEMPTS = 16  # how often a verb tries again before it gives the race up


class Raced(Exception):
    """Something changed between reading and committing. `own`: it was the object itself."""

    def __init__(self, own: bool) -> None:
        super().__init__("lost a race; try again")
        self.own = own


def admit(kind: Kind, new: JSON, old: JSON | None, context: Context) -> None:
    """Default, prepare and validate `new` in place. Raises Invalid."""
    admission.default(kind, new)
    admission.prepare(kind, new, old, context)
    metadata = new["metadata"]
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in metadata and not metadata[field]:  # as good as left out, and shown so
            del metadata[field]
    if causes := admission.validate(kind, new, old, context):
        raise refusal(kind, new, causes)
    if kind is SERVICE and not context.cluster.allow_external_ips and adds_external_ips(new, old):
        raise Forbidden(f'{kind.resource} "{metadata.get("name") or ""}" is forbidden: {_EXTERNAL_IPS}')


def refusal(kind: Kind, tree: JSON, causes: Sequence[Cause]) -> ApiError:
    metadata = tree["metadata"]
    return invalid(kind.kind, metadata.get("name") or metadata.get("generateName") or "", causes, kind.group)


async def open_namespace(state: State, target: Target, name: str) -> list[Check]:
    """The check that the namespace is still there and not terminating when the commit happens.

    Raises NotFound or Forbidden when it isn't so now.
    """
    if not target.kind.namespaced:
        return []
    item = await state.store.get(stored.key(NAMESPACE, "", target.namespace))
    if item is None:
        raise not_found(NAMESPACE.resource, target.namespace)
    tree = state.lines.tree(item.key, item.value, item.revision)
    if tree["metadata"].get("deletionTimestamp") or (tree.get("status") or {}).get("phase") == "Terminating":
        raise Forbidden(
            f'{target.kind.resource} "{name}" is forbidden: unable to create new content in namespace '
            f"{target.namespace} because it is being terminated",
            details={
                "name": name,
                "kind": target.kind.plural,
                "causes": [
                    {
                        "reason": "NamespaceTerminating",
                        "message": f"namespace {target.namespace} is being terminated",
                        "field": "metadata.namespace",
                    }
                ],
            },
        )
    return [Check(item.key, revision=item.revision)]


async def commit(
    state: State,
    target: Target,
    new: JSON | None,
    old: Versioned | None,
    *,
    checks: Sequence[Check] = (),
    more: Sequence[Write] = (),
    dry_run: bool = False,
) -> Versioned | None:
    """Write `new` (None deletes) in place of `old`, with its claims and what `more` there is. Raises Raced, Invalid.

    Returns the object as stored, or None for a deletion; of a dry run as it would be.
    """
    kind = target.kind
    context = state.context(target.subresource)
    changes: list[ClaimChange] = []
    if kind is SERVICE:
        ranges = await read_ranges(state)
        context = replace(context, cluster=replace(context.cluster, ranges=ranges.networks))
        changes = await _decide(state, new, stored.tree_of(old) if old else None, context)
        checks = [*checks, *ranges.checks(c.value for c in changes if c.kind == "address" and c.action == "claim")]
    tree = new if new is not None else {}
    name = target.name or tree["metadata"]["name"]
    if kind.group == RBAC and new is not None:
        check.refuse_escalation(state, asking.get(), kind, new, stored.tree_of(old) if old else None)
    if kind.group == CERTIFICATES and new is not None:
        check.refuse_signing(state, asking.get(), target, new, stored.tree_of(old) if old else None)
    if kind is NODE and new is not None:
        check.refuse_restricted(asking.get(), target, new, stored.tree_of(old) if old else None)
    key = old.key if old else stored.key(kind, target.namespace, name)
    value = stored.encode(kind, new) if new is not None else None
    if dry_run:
        await _refuse_taken(state, kind, tree, changes)
        return Versioned(key, value, old.revision if old else 0) if value is not None else None
    writes: list[Write] = list(more)
    by_key: dict[str, ClaimChange] = {}  # key of a claim -> the change
    for change in changes:
        if (write := await _claim(state, change, tree, context)) is not None:
            writes.append(write)
            by_key[write.key] = change
    writes.append(Write(key, value, old.revision if old else 0))  # last: its revision is the commit's
    try:
        revision = await state.store.commit(writes, checks)
    except PreconditionFailed as failed:
        _lost(state, kind, tree, by_key.get(failed.key), failed)
        raise Raced(failed.key == key) from failed
    except ValueError as error:
        raise TooLarge(f"Request entity too large: {error}") from error
    if kind.group == RBAC:
        state.rbac.put(kind, target.namespace, name, new)
        if kind is CLUSTER_ROLE:
            await _aggregate(state)
    if kind.group == register.GROUP:
        state.webhooks.put(kind, name, new)
    for key_claimed, change in by_key.items():
        state.hints.note(key_claimed, taken=change.action == "claim")
    return Versioned(key, value, revision) if value is not None else None


async def _aggregate(state: State) -> None:
    """Write the rules of each aggregated ClusterRole as they are now; the server's own doing."""
    token = asking.set(None)
    try:
        for name, rules in state.rbac.aggregated().items():
            item = await state.store.get(stored.key(CLUSTER_ROLE, "", name))
            tree = stored.tree_of(item) if item else None
            if item is not None and tree is not None and (tree.get("rules") or []) != rules:
                await commit(state, Target(CLUSTER_ROLE, "", name), tree | {"rules": rules}, item)
    except Raced:
        pass  # whoever was faster does the same
    finally:
        asking.reset(token)


def _lost(state: State, kind: Kind, new: JSON, change: ClaimChange | None, failed: PreconditionFailed) -> None:
    """Learn from a claim that was lost; raises where the client asked for just this value."""
    if change is None or change.action != "claim":
        return
    if not change.dynamic:
        raise admission.claim_lost(kind, new, change) from failed
    state.hints.note(failed.key, taken=True)


async def _refuse_taken(state: State, kind: Kind, new: JSON, changes: Sequence[ClaimChange]) -> None:
    """What the commit would: raise where the client asked for a value that another has."""
    for change in changes:
        if change.action == "claim" and not change.dynamic and await state.store.get(_key(change)) is not None:
            raise admission.claim_lost(kind, new, change)


async def _decide(state: State, new: JSON | None, old: JSON | None, context: Context) -> list[ClaimChange]:
    """The claims of a Service. Where the hints say that nothing is left, they are read again first."""
    try:
        return admission.claims(SERVICE, new, old, context, state.hints)
    except InternalError:
        await state.hints.load()
        return admission.claims(SERVICE, new, old, context, state.hints)


async def _claim(state: State, change: ClaimChange, service: JSON, context: Context) -> Write | None:
    """The write that makes or releases a claim; None when there is nothing to release."""
    key = _key(change)
    if change.action == "release":
        held = await state.store.get(key)
        return Write(key, None, held.revision) if held else None
    if change.kind == "nodeport":
        return Write(key, msgspec.json.encode(service["metadata"]["uid"]), 0)
    tree = admission.address_object(change.value, service, context)
    tree["metadata"].setdefault("uid", state.new_uid())
    tree["metadata"].setdefault("creationTimestamp", state.now())
    return Write(key, stored.encode(IP_ADDRESS, tree), 0)


def _key(change: ClaimChange) -> str:
    return stored.key(IP_ADDRESS, "", change.value) if change.kind == "address" else NODE_PORTS + change.value
