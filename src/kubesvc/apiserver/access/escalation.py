"""Nobody gives what they don't have: who writes a role needs all of it, or the verb escalate; who binds one, bind.

Follows pkg/registry/rbac/*/policybased.
"""

from __future__ import annotations

from kubesvc.api.meta import JSON
from kubesvc.api.registry import CLUSTER_ROLE, RBAC, ROLE, Kind
from kubesvc.apiserver.access.attributes import Attributes, groups_of
from kubesvc.apiserver.access.rbac import BINDINGS, ROLES, Rbac
from kubesvc.client.transport import User

_EVERYTHING: list[JSON] = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]


def refusal(rbac: Rbac, user: User, kind: Kind, new: JSON, old: JSON | None) -> str:
    """Why `user` may not write this role or binding; "" when they may."""
    metadata = new["metadata"]
    namespace, name = metadata.get("namespace") or "", metadata.get("name") or ""
    if kind in ROLES:
        if old is not None and all(old.get(f) == new.get(f) for f in ("rules", "aggregationRule")):
            return ""
        rules: list[JSON] = list(new.get("rules") or [])
        if (new.get("aggregationRule") or {}).get("clusterRoleSelectors"):
            rules += _EVERYTHING  # it may come to have any rule
        verb, resource, at = "escalate", kind.plural, name
    elif kind in BINDINGS:
        reference = new.get("roleRef") or {}
        if old is not None and all(old.get(f) == new.get(f) for f in ("roleRef", "subjects")):
            return ""
        known = rbac.role_rules(namespace, reference)
        rules = _EVERYTHING if known is None else known  # a role that isn't there yet may come to be anything
        verb, resource = "bind", (ROLE if reference.get("kind") == "Role" else CLUSTER_ROLE).plural
        at = reference.get("name") or ""
    else:
        return ""
    if rbac.allow(user, Attributes(verb, RBAC, resource, namespace, at)):
        return ""
    missing = [rule for rule in rules if not rbac.cover(user, namespace, rule)]
    if not missing:
        return ""
    groups = " ".join(f'"{group}"' for group in groups_of(user))
    lines = "\n".join(_shown(rule) for rule in missing)
    return (
        f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{lines}'
    )


_SHOWN = (("apiGroups", "APIGroups"), ("resources", "Resources"), ("resourceNames", "ResourceNames"),
          ("nonResourceURLs", "NonResourceURLs"), ("verbs", "Verbs"))  # fmt: skip


def _shown(rule: JSON) -> str:
    parts = [f"{shown}:[{', '.join(_quoted(v) for v in rule[field])}]" for field, shown in _SHOWN if rule.get(field)]
    return "{" + ", ".join(parts) + "}"


def _quoted(text: str) -> str:
    return f'"{text}"'
