"""The rules of roles and bindings.

Source: pkg/apis/rbac/v1/defaults.go, pkg/apis/rbac/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, RBAC, ROLE, ROLE_BINDING
from kubesvc.apiserver.admission.causes import invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.metadata import path_segment, validate_selector
from kubesvc.apiserver.admission.rules import Rules


def default_binding(tree: JSON) -> None:
    """The API groups that go without saying."""
    reference = tree.get("roleRef")
    if reference is not None and not reference.get("apiGroup"):
        reference["apiGroup"] = RBAC
    for subject in tree.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = RBAC


def validate_role(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes = [
        cause
        for index, rule in enumerate(new.get("rules") or ())
        for cause in _rule(rule, f"rules[{index}]", namespaced=bool(new["metadata"].get("namespace")))
    ]
    if (aggregated := new.get("aggregationRule")) is not None:
        path, selectors = "aggregationRule.clusterRoleSelectors", aggregated.get("clusterRoleSelectors") or ()
        if not selectors:
            causes.append(required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
        for index, selector in enumerate(selectors):
            causes += validate_selector(selector, f"{path}[{index}]")
    return causes


def _rule(rule: JSON, path: str, *, namespaced: bool) -> Iterator[Cause]:
    if not rule.get("verbs"):
        yield required(f"{path}.verbs", "verbs must contain at least one value")
    if urls := rule.get("nonResourceURLs"):
        if namespaced:
            yield invalid(f"{path}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
        elif rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            yield invalid(f"{path}.nonResourceURLs", urls, why)
        return
    if not rule.get("apiGroups"):
        yield required(f"{path}.apiGroups", "resource rules must supply at least one api group")
    if not rule.get("resources"):
        yield required(f"{path}.resources", "resource rules must supply at least one resource")


def validate_binding(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    """Who a binding is for may change; which role it gives may not."""
    reference, namespaced = new.get("roleRef") or {}, bool(new["metadata"].get("namespace"))
    causes: list[Cause] = []
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if reference.get("apiGroup") != RBAC:
        causes.append(not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", (RBAC,)))
    if reference.get("kind") not in kinds:
        causes.append(not_supported("roleRef.kind", reference.get("kind") or "", kinds))
    if not reference.get("name"):
        causes.append(required("roleRef.name"))
    else:
        causes += [invalid("roleRef.name", reference["name"], why) for why in path_segment(reference["name"])]
    for index, subject in enumerate(new.get("subjects") or ()):
        causes += _subject(subject, f"subjects[{index}]", namespaced=namespaced)
    if old is not None and old.get("roleRef") != reference:
        causes.append(invalid("roleRef", reference, "cannot change roleRef"))
    return causes


def _subject(subject: JSON, path: str, *, namespaced: bool) -> Iterator[Cause]:
    kind, name, group = subject.get("kind") or "", subject.get("name") or "", subject.get("apiGroup") or ""
    if not name:
        yield required(f"{path}.name")
    if kind == "ServiceAccount":
        if name:
            yield from (invalid(f"{path}.name", name, why) for why in names.subdomain(name))
        if group:
            yield not_supported(f"{path}.apiGroup", group, ("",))
        if not subject.get("namespace") and not namespaced:
            yield required(f"{path}.namespace")
    elif kind in ("User", "Group"):
        if group != RBAC:
            yield not_supported(f"{path}.apiGroup", group, (RBAC,))
    else:
        yield not_supported(f"{path}.kind", kind, ("Group", "ServiceAccount", "User"))


_ROLE = Rules(validate=validate_role, name=path_segment)
_BINDING = Rules(default=default_binding, validate=validate_binding, name=path_segment)
ADMITS = ((ROLE, _ROLE), (CLUSTER_ROLE, _ROLE), (ROLE_BINDING, _BINDING), (CLUSTER_ROLE_BINDING, _BINDING))
