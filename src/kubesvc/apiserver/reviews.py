"""Reviews: questions about the caller that are answered on the spot and never stored.

    who am I?                       SelfSubjectReview         kubectl auth whoami
    may I, may somebody, do this?   …SubjectAccessReview      kubectl auth can-i
    what may I do?                  SelfSubjectRulesReview    kubectl auth can-i --list

Nothing here restricts anybody who was let in: whoever has a certificate may do everything, and these say so. Whoever
has none may ask for health and version alone. Follows pkg/registry/{authorization,authentication}.
"""

from __future__ import annotations

from collections.abc import Callable

from kubesvc.api import registry
from kubesvc.api.errors import BadRequest, Cause, Invalid, Unauthorized, invalid
from kubesvc.api.meta import JSON
from kubesvc.apiserver import body, encode, health
from kubesvc.apiserver.admission.causes import invalid as invalid_value
from kubesvc.apiserver.admission.causes import required
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.warnings import warn
from kubesvc.client.transport import Request, Response, User

_AUTHENTICATED, _NOBODY = "system:authenticated", ("system:anonymous", "system:unauthenticated")
_NO_RULE = "who has no client certificate may ask for health and version alone"


async def create(state: State, request: Request, target: Target) -> Response:
    """The review with its answer in the status, 201. Raises BadRequest, Invalid."""
    if request.user is None:
        raise Unauthorized("Unauthorized")
    tree, warnings = body.read_known(request, target, body.write_options(request))
    warn(warnings)
    answer = _ANSWERS[target.kind.plural]
    tree["metadata"].setdefault("creationTimestamp", None)
    return encode.tree({**tree, "status": answer(target, tree.get("spec") or {}, request.user)}, 201)


def _who(target: Target, spec: JSON, user: User) -> JSON:
    return {"userInfo": {"username": user.name, "groups": _groups(user.groups)}}


def _rules(target: Target, spec: JSON, user: User) -> JSON:
    if not spec.get("namespace"):
        raise BadRequest("no namespace on request")
    resources = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    return {"resourceRules": resources, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": False}  # fmt: skip


def _may_i(target: Target, spec: JSON, user: User) -> JSON:
    _one_question(target, spec)
    return {"allowed": True}


def _may_somebody(target: Target, spec: JSON, user: User) -> JSON:
    _one_question(target, spec)
    who, groups = spec.get("user") or "", spec.get("groups") or []
    if not who and not groups:
        raise _refused(target, required("spec.user", "at least one of user or group must be specified"))
    if target.kind.namespaced and (spec.get("resourceAttributes") or {}).get("namespace") != target.namespace:
        raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {target.namespace}")
    path = (spec.get("nonResourceAttributes") or {}).get("path")
    if (who in _NOBODY or _NOBODY[1] in groups) and not (path is not None and health.is_open(path)):
        return {"allowed": False, "reason": _NO_RULE}
    return {"allowed": True}


def _one_question(target: Target, spec: JSON) -> None:
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    path = "spec.resourceAttributes"
    if resource is not None and other is not None:
        why = "cannot be specified in combination with resourceAttributes"
        raise _refused(target, invalid_value("spec.nonResourceAttributes", other, why))
    if resource is None and other is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise _refused(target, invalid_value(path, None, why))


def _refused(target: Target, cause: Cause) -> Invalid:
    return invalid(target.kind.kind, "", [cause], target.kind.group)


def _groups(groups: tuple[str, ...]) -> list[str]:
    return [*(group for group in groups if group != _AUTHENTICATED), _AUTHENTICATED]


_ANSWERS: dict[str, Callable[[Target, JSON, User], JSON]] = {
    registry.SELF_SUBJECT_REVIEW.plural: _who,
    registry.SELF_SUBJECT_RULES_REVIEW.plural: _rules,
    registry.SELF_SUBJECT_ACCESS_REVIEW.plural: _may_i,
    registry.SUBJECT_ACCESS_REVIEW.plural: _may_somebody,
    registry.LOCAL_SUBJECT_ACCESS_REVIEW.plural: _may_somebody,
}
