"""Which rules are whose: roles and bindings, kept in memory as they are committed, looked up by subject."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubesvc.api.meta import JSON, LabelSelector
from kubesvc.api.registry import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, RBAC, ROLE, ROLE_BINDING, Kind
from kubesvc.api.selectors import Selector, from_label_selector, matches
from kubesvc.apiserver.access.attributes import MASTERS, Attributes, groups_of
from kubesvc.apiserver.access.grants import Grants
from kubesvc.client.transport import User

ROLES, BINDINGS = (ROLE, CLUSTER_ROLE), (ROLE_BINDING, CLUSTER_ROLE_BINDING)
KINDS = (*ROLES, *BINDINGS)

Key = tuple[str, str]
"""(namespace, name); the namespace is "" for what holds in all of them."""


class Rbac:
    """Told of every role and binding by `put`; asked by `allow`."""

    def __init__(self) -> None:
        self._roles: dict[Key, JSON] = {}
        self._bindings: dict[Key, JSON] = {}
        self._bound: dict[tuple[str, str], set[Key]] = {}  # (subject, namespace) -> its bindings there
        self._grants: dict[tuple[str, str], Grants] = {}  # (subject, namespace) -> what those give; made when asked

    def put(self, kind: Kind, namespace: str, name: str, tree: JSON | None) -> None:
        """A role or binding as it is now; None when it is gone."""
        if kind in ROLES:
            _replace(self._roles, (namespace, name), tree)
        elif kind in BINDINGS:
            key = (namespace, name)
            for subject in set(_subjects(self._bindings.get(key))):
                self._bound[subject, namespace].discard(key)
                if not self._bound[subject, namespace]:
                    del self._bound[subject, namespace]
            _replace(self._bindings, key, tree)
            for subject in _subjects(tree):
                self._bound.setdefault((subject, namespace), set()).add(key)
        else:
            return
        self._grants.clear()

    def allow(self, user: User, wanted: Attributes) -> bool:
        return MASTERS in user.groups or any(g.allow(wanted) for g in self.grants(user, wanted.namespace))

    def reason(self, user: User, wanted: Attributes) -> str:
        """By which binding `user` may do this, in upstream's words; "" when none gives it. For the audit log: slow."""
        for subject, namespace in self._keys(user, wanted.namespace):
            for binding in sorted(self._bound.get((subject, namespace), ())):
                reference = self._bindings[binding].get("roleRef") or {}
                if Grants(self.role_rules(namespace, reference) or []).allow(wanted):
                    kind, _, name = subject.partition(":")
                    named = f"{binding[0]}/{binding[1]}" if namespace else binding[1]
                    what = f'{"RoleBinding" if namespace else "ClusterRoleBinding"} "{named}"'
                    role = f'{reference.get("kind")} "{reference.get("name")}"'
                    return f'RBAC: allowed by {what} of {role} to {kind} "{name}"'
        return ""

    def cover(self, user: User, namespace: str, rule: JSON) -> bool:
        """Whether `user` has all that `rule` gives, in `namespace`. Their grants count together."""
        if MASTERS in user.groups:
            return True
        rules = [known for key in self._keys(user, namespace) for known in self._rules_bound(key)]
        return Grants(rules).cover(rule)

    def rules(self, user: User, namespace: str) -> list[JSON]:
        """Every rule of `user` in `namespace`, those of the whole cluster too."""
        everything: list[JSON] = [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
            {"verbs": ["*"], "nonResourceURLs": ["*"]},
        ]
        if MASTERS in user.groups:
            return everything
        return [rule for key in self._keys(user, namespace) for rule in self._rules_bound(key)]

    def grants(self, user: User, namespace: str) -> Iterator[Grants]:
        for key in self._keys(user, namespace):
            if key in self._bound:  # nothing is kept of names that nobody has bound
                found = self._grants.get(key)
                if found is None:
                    found = self._grants[key] = Grants(self._rules_bound(key))
                yield found

    def role_rules(self, namespace: str, reference: JSON) -> list[JSON] | None:
        """The rules of the role that a binding in `namespace` refers to; None where there is none."""
        key = (namespace if reference.get("kind") == "Role" else "", reference.get("name") or "")
        role = self._roles.get(key)
        if role is None:
            return None
        return self._aggregated(key, frozenset())

    def aggregated(self) -> dict[str, list[JSON]]:
        """ClusterRole -> the rules it has by its aggregationRule, of those that have one."""
        return {key[1]: self._aggregated(key, frozenset()) for key, role in self._roles.items() if _selectors(role)}

    def _aggregated(self, key: Key, above: frozenset[Key]) -> list[JSON]:
        """A role's own rules, or those of all the ClusterRoles its aggregationRule selects, aggregated ones too."""
        role = self._roles[key]
        wanted = _selectors(role)
        if not wanted:
            return role.get("rules") or []
        found: list[JSON] = []
        for other in sorted(self._roles):
            labels = self._roles[other]["metadata"].get("labels") or {}
            if not other[0] and other != key and other not in above and any(matches(s, labels) for s in wanted):
                found += [rule for rule in self._aggregated(other, above | {key}) if rule not in found]
        return found

    def _keys(self, user: User, namespace: str) -> Iterator[tuple[str, str]]:
        for subject in (f"User:{user.name}", *(f"Group:{group}" for group in groups_of(user))):
            yield subject, ""
            if namespace:
                yield subject, namespace

    def _rules_bound(self, key: tuple[str, str]) -> list[JSON]:
        found: list[JSON] = []
        for binding in sorted(self._bound.get(key, ())):
            found += self.role_rules(key[1], self._bindings[binding].get("roleRef") or {}) or []
        return found


def _replace(known: dict[Key, JSON], key: Key, tree: JSON | None) -> None:
    if tree is None:
        known.pop(key, None)
    else:
        known[key] = tree


def _selectors(role: JSON) -> list[Selector]:
    found = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
    return [from_label_selector(msgspec.convert(selector, LabelSelector)) for selector in found]


def _subjects(binding: JSON | None) -> Iterator[str]:
    """The subjects of a binding, as users and groups."""
    for subject in (binding or {}).get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name") or ""
        if kind == "ServiceAccount" and subject.get("apiGroup") in (None, ""):
            yield f"User:system:serviceaccount:{subject.get('namespace') or ''}:{name}"
        elif kind in ("User", "Group") and subject.get("apiGroup") == RBAC:
            yield f"{kind}:{name}"
