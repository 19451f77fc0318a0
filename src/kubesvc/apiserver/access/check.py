"""Authorisation in front of every verb, and of what a verb does beyond its name."""

from __future__ import annotations

import logging
from urllib.parse import unquote

from msgspec.structs import replace

from kubesvc.api.errors import ApiError, BadRequest, Forbidden
from kubesvc.api.meta import JSON
from kubesvc.api.registry import AUTHENTICATION, PERSISTENT_VOLUME, POD, Kind
from kubesvc.apiserver import body, stored
from kubesvc.apiserver.access import attributes, escalation, node, signers
from kubesvc.apiserver.access.attributes import ANONYMOUS, MASTERS, UNAUTHENTICATED, Attributes
from kubesvc.apiserver.access.rbac import KINDS
from kubesvc.apiserver.audit import notes
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, User

log = logging.getLogger(__name__)

_ACCOUNTS = "system:serviceaccount:"


async def authorize(state: State, request: Request, target: Target | None) -> None:
    """Raises Forbidden, in upstream's words. The request has a user."""
    user = request.user
    assert user is not None
    if MASTERS in user.groups:
        notes.decided(True)
        return
    wanted = attributes.of(request, target)
    why = await refusal(state, user, wanted, request)
    if notes.notes.get() is not None:
        more = why.removeprefix(wanted.refusal(user.name)).removeprefix(": ")  # beyond that no rule allows it
        notes.decided(not why, more if why else state.rbac.reason(user, wanted))
    if why:
        log.info("forbidden: %s", why)
        raise forbidden(wanted, target.kind if target else None, why)


async def impersonated(state: State, request: Request) -> Request:
    """The request as that of the user and the groups its Impersonate-… headers name (kubectl --as). Raises Forbidden
    where whoever sent it may not do that, BadRequest for groups without a user."""
    name, user = request.headers.get("impersonate-user", ""), request.user
    given = request.headers.get("impersonate-group", "")
    groups = tuple(group.strip() for group in given.split(",") if group.strip())
    uid, extra = request.headers.get("impersonate-uid", ""), _impersonated_extra(request)
    if not (name or groups or uid or extra):
        return request
    if not name:
        raise BadRequest("requested impersonation of groups, a uid or extra without impersonating a user")
    assert user is not None
    account = name.split(":")[2:] if name.startswith(_ACCOUNTS) else []
    if len(account) == 2:
        asked = [Attributes("impersonate", "", "serviceaccounts", account[0], account[1])]
        groups = groups or ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
    else:
        asked = [Attributes("impersonate", "", "users", "", name)]
    asked += [Attributes("impersonate", "", "groups", "", group) for group in groups]
    asked += [Attributes("impersonate", AUTHENTICATION, "uids", "", uid)] if uid else []
    asked += [Attributes("impersonate", AUTHENTICATION, f"userextras/{k}", "", v) for k, vs in extra for v in vs]
    for wanted in asked:
        if not state.rbac.allow(user, wanted):
            shown = f'{wanted.resource} "{wanted.name}" is forbidden: {wanted.refusal(user.name)}'
            raise Forbidden(shown, details={"name": wanted.name, "kind": wanted.resource})
    if name == ANONYMOUS and UNAUTHENTICATED not in groups:
        groups += (UNAUTHENTICATED,)
    known = UNAUTHENTICATED not in groups
    return replace(request, user=User(name, groups, uid, extra, authenticated=known))


def _impersonated_extra(request: Request) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What Impersonate-Extra-KEY headers say; the key is percent-encoded."""
    start = "impersonate-extra-"
    return tuple(
        (unquote(name.removeprefix(start)), tuple(value.strip() for value in text.split(",")))
        for name, text in sorted(request.headers.items())
        if name.startswith(start)
    )


async def refusal(state: State, user: User, wanted: Attributes, request: Request | None = None) -> str:
    """Why `user` may not do this; "" when they may. Without the request itself, a node's selector and body are taken
    to be in order."""
    if not state.rbac.allow(user, wanted):
        return wanted.refusal(user.name)
    if name := node.node_of(user):
        about, claim = wanted, ""
        if wanted.resource == PERSISTENT_VOLUME.plural:
            namespace, claim = await _claim_of(state, wanted.name)
            about = replace(wanted, namespace=namespace)
        pods = await _bound(state, about, name) if node.needs_pods(wanted) else []
        selector = f"spec.nodeName={name}" if request is None else request.query.get("fieldSelector", "")
        named = _named(request) if wanted.verb == "create" else ""
        if why := node.refusal(name, wanted, pods, selector=selector, named=named, claim=claim):
            return f"{wanted.refusal(user.name)}: {why}"
    return ""


async def require(state: State, request: Request, target: Target, verb: str) -> None:
    """That the user may also do `verb` here: a PUT or an apply may come to be a create. Raises Forbidden."""
    user = request.user
    if user is not None and MASTERS not in user.groups:
        wanted = replace(attributes.of(request, target), verb=verb)
        if why := await refusal(state, user, wanted, request):
            raise forbidden(wanted, target.kind, why)


def forbidden(wanted: Attributes, kind: Kind | None, why: str) -> ApiError:
    if kind is None:
        return Forbidden(f"forbidden: {why}", details={})
    shown = f'{kind.resource} "{wanted.name}"' if wanted.name else kind.resource
    details: JSON = {"name": wanted.name, "group": kind.group, "kind": kind.plural}
    return Forbidden(f"{shown} is forbidden: {why}", details={k: v for k, v in details.items() if v})


def refuse_escalation(state: State, user: User | None, kind: Kind, new: JSON, old: JSON | None) -> None:
    """Raises Forbidden where a role or binding would give more than its writer has."""
    if kind not in KINDS or user is None or MASTERS in user.groups:
        return
    if why := escalation.refusal(state.rbac, user, kind, new, old):
        name = new["metadata"].get("name") or ""
        raise Forbidden(f'{kind.resource} "{name}" is forbidden: {why}', details={"name": name, "kind": kind.plural})


def refuse_restricted(user: User | None, target: Target, new: JSON, old: JSON | None) -> None:
    """Raises Forbidden where a node gives itself what is for others to give."""
    name = node.node_of(user) if user is not None else ""
    if name and (why := node.write_refusal(name, new, old)):
        raise Forbidden(f'{target.kind.resource} "{name}" is forbidden: {why}', details={"name": name, "kind": "nodes"})


def refuse_signing(state: State, user: User | None, target: Target, new: JSON, old: JSON | None) -> None:
    """Raises Forbidden where a request for a certificate is approved or signed by who may not for its signer."""
    if why := signers.refusal(state.rbac, user, target.subresource, new, old):
        name = new["metadata"].get("name") or ""
        details = {"name": name, "group": target.kind.group, "kind": target.kind.plural}
        raise Forbidden(f'{target.kind.resource} "{name}" is forbidden: {why}', details=details)


async def _bound(state: State, wanted: Attributes, name: str) -> list[JSON]:
    """The pods of a namespace that are on a node; of a request about one pod, that one alone, also where there is none
    any more: that it isn't found is then the request's to say."""
    if wanted.resource.partition("/")[0] == POD.plural and wanted.name:
        one = await state.store.get(stored.key(POD, wanted.namespace, wanted.name))
        if one is None:
            return [{"metadata": {"name": wanted.name}}]
        tree = stored.tree_of(one)
        return [tree] if (tree.get("spec") or {}).get("nodeName") == name else []
    if not wanted.namespace:
        return []
    page = await state.store.list(stored.collection(POD, wanted.namespace))
    trees = (state.lines.tree(item.key, item.value, item.revision) for item in page.items)
    return [tree for tree in trees if (tree.get("spec") or {}).get("nodeName") == name]


async def _claim_of(state: State, name: str) -> tuple[str, str]:
    """The (namespace, name) of the claim that a PersistentVolume is bound to, empty where there is none."""
    item = await state.store.get(stored.key(PERSISTENT_VOLUME, "", name)) if name else None
    if item is None:
        return "", ""
    reference = (state.lines.tree(item.key, item.value, item.revision).get("spec") or {}).get("claimRef") or {}
    return reference.get("namespace") or "", reference.get("name") or ""


def _named(request: Request | None) -> str:
    """The name in the body of a create, in whichever form it comes."""
    if request is None:
        return ""
    try:
        return str(body.parse(request)["metadata"]["name"])
    except (ApiError, KeyError, TypeError):
        return ""
