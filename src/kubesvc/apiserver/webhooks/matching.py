"""Whether a webhook is to be asked about a change. Source: apiserver pkg/admission/plugin/webhook/{rules,generic}."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.api.registry import NAMESPACE, Kind
from kubesvc.api.selectors import matches
from kubesvc.apiserver.custom import cel
from kubesvc.apiserver.webhooks.configuration import Rule, Webhook


class Change(msgspec.Struct, frozen=True):
    """What somebody wants: CREATE, UPDATE, DELETE of or CONNECT to an object of `kind`. `new` is None for DELETE, `old`
    for CREATE and CONNECT. Both are of kind `subject`: another one for subresources with objects of their own."""

    operation: str
    kind: Kind
    subject: Kind
    namespace: str
    name: str
    subresource: str
    new: JSON | None
    old: JSON | None
    dry_run: bool = False


def kind_for(webhook: Webhook, change: Change, others: Iterable[Kind]) -> Kind | None:
    """The kind in whose version the webhook wants to see the object: the one that was asked for or, with matchPolicy
    Equivalent, another version of it, among `others`. None: its rules don't match."""
    candidates = [change.kind]
    if webhook.match_policy == "Equivalent":
        candidates += [kind for kind in others if kind is not change.kind]
    return next((kind for kind in candidates if any(_rule(rule, change, kind) for rule in webhook.rules)), None)


def _rule(rule: Rule, change: Change, kind: Kind) -> bool:
    scope = "Namespaced" if kind.namespaced else "Cluster"
    return (
        _has(rule.operations, change.operation)
        and _has(rule.api_groups, kind.group)
        and _has(rule.api_versions, kind.version)
        and rule.scope in ("*", scope)
        and any(_resource(pattern, kind.plural, change.subresource) for pattern in rule.resources)
    )


def _has(listed: list[str], value: str) -> bool:
    return "*" in listed or value in listed


def _resource(pattern: str, plural: str, subresource: str) -> bool:
    resource, _, sub = pattern.partition("/")
    if pattern == "*":
        return not subresource
    return resource in ("*", plural) and sub in ("*" if subresource or sub == "*" else "", subresource)


def selected(webhook: Webhook, change: Change, namespace_labels: Mapping[str, str]) -> bool:
    """Whether the namespace and the object, as it is or was, have the labels asked for."""
    if change.kind is NAMESPACE:
        namespace_labels = _labels(change.new or change.old)
    if (change.kind.namespaced or change.kind is NAMESPACE) and not matches(webhook.namespaces, namespace_labels):
        return False
    objects = [tree for tree in (change.new, change.old) if tree is not None]
    return any(matches(webhook.objects, _labels(tree)) for tree in objects)


def _labels(tree: JSON | None) -> Mapping[str, str]:
    found: Mapping[str, str] = ((tree or {}).get("metadata") or {}).get("labels") or {}
    return found


def conditions_hold(webhook: Webhook, change: Change, request: JSON) -> bool:
    """Raises CelError for a condition that can't be evaluated; one that is false decides."""
    failed: cel.CelError | None = None
    for condition in webhook.match_conditions:
        try:
            held = cel.compiled(condition.expression)(
                {"object": change.new, "oldObject": change.old, "request": request}
            )
        except cel.CelError as error:
            failed = failed or error
            continue
        if held is not True:
            return False
    if failed is not None:
        raise failed
    return True
