"""Asking without doing: may this user do that? Nothing of it is stored; `kubectl auth can-i` and whoami ask here."""

from __future__ import annotations

from kubesvc.api import registry
from kubesvc.api.errors import BadRequest, invalid
from kubesvc.api.meta import JSON
from kubesvc.apiserver import body, encode, fields
from kubesvc.apiserver.access import check
from kubesvc.apiserver.access.attributes import Attributes, user_info
from kubesvc.apiserver.admission.causes import invalid as invalid_value
from kubesvc.apiserver.authentication import review as token_review
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.warnings import warn
from kubesvc.client.transport import Request, Response, User


async def create(state: State, request: Request, target: Target) -> Response:
    """The review with its status, 201. Raises BadRequest, Invalid."""
    review, warnings = body.read_known(request, target, body.write_options(request))
    fields.refuse_mistyped(target.kind, review)
    warn(warnings)
    user, spec = request.user, review.get("spec") or {}
    assert user is not None
    review["metadata"].setdefault("creationTimestamp", None)
    if target.kind is registry.SELF_SUBJECT_REVIEW:
        review["status"] = {"userInfo": user_info(user)}
    elif target.kind is registry.TOKEN_REVIEW:
        review["status"] = await token_review.status(state, spec)
    elif target.kind is registry.SELF_SUBJECT_RULES_REVIEW:
        if not spec.get("namespace"):
            raise BadRequest("no namespace on request")
        review["status"] = _rules(state, user, spec["namespace"])
    else:
        if target.kind is not registry.SELF_SUBJECT_ACCESS_REVIEW:
            groups = tuple(spec.get("groups") or ())  # all of them, as upstream: whoever asks knows them
            user = User(spec.get("user") or "", groups, authenticated=False)
        if target.kind is registry.LOCAL_SUBJECT_ACCESS_REVIEW:
            given = (spec.get("resourceAttributes") or {}).get("namespace") or ""
            if given != target.namespace:
                raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {target.namespace}")
        wanted = _attributes(target, spec, user)
        why = await check.refusal(state, user, wanted)
        more = why.removeprefix(wanted.refusal(user.name)).removeprefix(": ")  # beyond that no rule allows it
        review["status"] = {"allowed": not why} | ({"reason": more} if more else {})
    return encode.tree(review, 201)


def _attributes(target: Target, spec: JSON, user: User) -> Attributes:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    causes = []
    if resource is not None and path is not None:
        why = "cannot be specified in combination with resourceAttributes"
        causes.append(invalid_value("spec.nonResourceAttributes", path, why))
    if resource is None and path is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.append(invalid_value("spec.resourceAttributes", None, why))
    if not user.name and not user.groups:
        causes.append(invalid_value("spec.user", "", "at least one of user or group must be specified"))
    if causes:
        raise invalid(target.kind.kind, "", causes, target.kind.group)
    if resource is None:
        return Attributes((path or {}).get("verb") or "", path=(path or {}).get("path") or "/")
    plural, subresource = resource.get("resource") or "", resource.get("subresource") or ""
    return Attributes(
        resource.get("verb") or "",
        resource.get("group") or "",
        f"{plural}/{subresource}" if subresource else plural,
        resource.get("namespace") or "",
        resource.get("name") or "",
    )


def _rules(state: State, user: User, namespace: str) -> JSON:
    rules = state.rbac.rules(user, namespace)
    return {
        "resourceRules": [rule for rule in rules if rule.get("resources")],
        "nonResourceRules": [rule for rule in rules if rule.get("nonResourceURLs")],
        "incomplete": False,
    }
