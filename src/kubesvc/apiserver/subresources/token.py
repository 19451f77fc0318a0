"""POST of serviceaccounts/NAME/token: a token for that account, bound to a pod, a Secret or a node if wished.

A node gets tokens only for pods bound to it, and only for audiences that their volumes name.
Follows pkg/registry/core/serviceaccount/storage/token.go and the NodeRestriction admission plugin.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubesvc.api.errors import BadRequest, Cause, Forbidden, conflict, invalid, not_found
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.registry import NODE, POD, SECRET, Kind
from kubesvc.apiserver import body, encode, fields, stored
from kubesvc.apiserver.access.node import node_of
from kubesvc.apiserver.admission.causes import invalid as invalid_value
from kubesvc.apiserver.authentication.claims import Bound, Reference
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.webhooks import asking
from kubesvc.client.transport import Request, Response, User

TOKEN_REQUEST = Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", "tokenrequest", True)
_BINDS: dict[tuple[str, str], Kind] = {("v1", kind.kind): kind for kind in (POD, SECRET, NODE)}

SHORTEST, LONGEST, USUAL = 600, 1 << 32, 3600  # seconds
WARN_AFTER = 3607
"""What admission asks for pods. Such a token is good for longer, as upstream: clients from before tokens were replaced
read theirs once. It ends with its pod all the same."""
EXTENDED = 365 * 24 * 3600


async def create(state: State, request: Request, target: Target) -> Response:
    """201, the request with its token in the status. Raises NotFound, Invalid, BadRequest, Conflict, Forbidden."""
    options = body.write_options(request)
    asked = _read(request, target)
    account = stored.tree_of(await state.read(target))
    metadata = asked["metadata"]
    metadata.setdefault("name", target.name)
    metadata.setdefault("namespace", target.namespace)
    metadata["creationTimestamp"] = state.now()
    await asking.submitted(state, target, TOKEN_REQUEST, asked, dry_run=options.dry_run)
    spec = _spec(asked)
    audiences = spec["audiences"] = spec.get("audiences") or [state.tokens.issuer]
    wanted = spec.get("boundObjectRef")
    seconds = spec["expirationSeconds"]
    bound = await _bound(state, target, request.user, account, wanted, audiences)
    lasting = seconds
    if seconds == WARN_AFTER and bound.pod is not None and audiences == [state.tokens.issuer]:
        lasting = EXTENDED
    now = int(state.clock().timestamp())
    if lasting != seconds:
        bound = Bound(bound.namespace, bound.serviceaccount, bound.pod, None, bound.node, now + seconds)
    token = state.tokens.issue(bound, audiences=audiences, id=state.new_uid(), now=now, seconds=lasting)
    expires = format_time(state.clock().fromtimestamp(now + seconds, state.clock().tzinfo))
    asked["status"] = {"token": token, "expirationTimestamp": expires}
    return encode.tree(asked, 201)


def _read(request: Request, target: Target) -> JSON:
    """Raises BadRequest, Invalid."""
    asked = body.parse(request)
    body.check_shape(TOKEN_REQUEST, asked)
    metadata = asked["metadata"]
    if (metadata.get("name") or target.name) != target.name:
        raise BadRequest("the name of the object does not match the name on the URL")
    if (metadata.get("namespace") or target.namespace) != target.namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    fields.refuse_mistyped(TOKEN_REQUEST, asked)
    _spec(asked)
    return asked


def _spec(asked: JSON) -> JSON:
    """Its spec, with the usual time where it has none. Raises Invalid."""
    if asked.get("spec") is None:
        asked["spec"] = {}
    spec: JSON = asked["spec"]
    if spec.get("expirationSeconds") is None:
        spec["expirationSeconds"] = USUAL
    if causes := list(_seconds(spec["expirationSeconds"])):
        raise invalid(TOKEN_REQUEST.kind, "", causes, TOKEN_REQUEST.group)
    return spec


def _seconds(given: int) -> Iterator[Cause]:
    path = "spec.expirationSeconds"
    if given < SHORTEST:
        yield invalid_value(path, given, "may not specify a duration less than 10 minutes")
    elif given > LONGEST:
        yield invalid_value(path, given, "may not specify a duration larger than 2^32 seconds")


async def _bound(
    state: State, target: Target, user: User | None, account: JSON, wanted: JSON | None, audiences: list[str]
) -> Bound:
    """What the token is for. Raises NotFound, BadRequest, Conflict, Forbidden."""
    reference = Reference(target.name, account["metadata"]["uid"])
    node = node_of(user) if user is not None else ""
    kind = None
    if wanted is not None:
        api_version, name = wanted.get("apiVersion") or "", wanted.get("kind") or ""
        kind = _BINDS.get((api_version, name))
    if node and (wanted is None or kind is not POD):
        raise _refused(target, "node requested token not bound to a pod")
    if wanted is None:
        return Bound(target.namespace, reference)
    if kind is None:
        group, _, version = api_version.rpartition("/")
        shown = f"{group}/{version}, Kind={name}"
        raise BadRequest(f"cannot bind token for serviceaccount to object of type {shown}")
    if node and not wanted.get("uid"):
        raise _refused(target, "node requested token with a pod binding without a uid")
    found = await _object(state, kind, "" if kind is NODE else target.namespace, wanted.get("name") or "")
    if node:
        _of_node(target, node, found, wanted["uid"], audiences, state.tokens.issuer)
    metadata = found["metadata"]
    if kind is POD and (found["spec"].get("serviceAccountName") or "default") != target.name:
        why = "to pod running with different serviceaccount name."
        raise BadRequest(f'cannot bind token for serviceaccount "{target.name}" {why}')
    if wanted.get("uid") and wanted["uid"] != metadata["uid"]:
        raise conflict(kind.kind, metadata["name"], _other_uid(wanted["uid"]))
    bound = Reference(metadata["name"], metadata["uid"])
    if kind is NODE:
        return Bound(target.namespace, reference, node=bound)
    if kind is SECRET:
        return Bound(target.namespace, reference, secret=bound)
    return Bound(target.namespace, reference, pod=bound, node=await _node(state, found))


def _other_uid(uid: str) -> str:
    return (
        f"the UID in the bound object reference ({uid}) does not match the UID in record. "
        "The object might have been deleted and then recreated"
    )


def _of_node(target: Target, node: str, pod: JSON, uid: str, audiences: list[str], issuer: str) -> None:
    """That a node may have a token for this pod. Raises Forbidden."""
    if pod["metadata"]["uid"] != uid:
        raise _refused(target, _other_uid(uid))
    if pod["spec"].get("nodeName") != node:
        raise _refused(target, "node requested token bound to a pod scheduled on a different node")
    named = {issuer} | {projection.get("audience") or issuer for projection in _projections(pod)}
    for audience in audiences:
        if audience not in named:
            raise _refused(target, f'audience "{audience}" not found in pod spec volume')


def _projections(pod: JSON) -> Iterator[JSON]:
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken"):
                yield source["serviceAccountToken"]


async def _object(state: State, kind: Kind, namespace: str, name: str) -> JSON:
    """Raises NotFound."""
    item = await state.store.get(stored.key(kind, namespace, name))
    if item is None:
        raise not_found(kind.resource, name)
    return stored.tree_of(item)


async def _node(state: State, pod: JSON) -> Reference | None:
    name = pod["spec"].get("nodeName") or ""
    if not name:
        return None
    item = await state.store.get(stored.key(NODE, "", name))
    return Reference(name, stored.tree_of(item)["metadata"]["uid"] if item else "")


def _refused(target: Target, why: str) -> Forbidden:
    details = {"name": target.name, "kind": target.kind.plural}
    return Forbidden(f'{target.kind.resource} "{target.name}" is forbidden: {why}', details=details)
