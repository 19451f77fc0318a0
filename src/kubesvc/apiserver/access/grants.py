"""Rules compiled into sets: what they allow is a few look-ups, however many they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from kubesvc.api.meta import JSON
from kubesvc.apiserver.access.attributes import Attributes

Triple = tuple[str, str, str]
"""(verb, API group, resource); each may be *, and a resource */SUBRESOURCE."""

ANY = "*"


class Grants:
    """All that a set of PolicyRules allows."""

    __slots__ = ("_named", "_paths", "_prefixes", "_whole")

    def __init__(self, rules: Iterable[JSON]) -> None:
        self._whole: set[Triple] = set()
        self._named: dict[Triple, set[str]] = {}  # triple -> the only names it is for
        self._paths: set[tuple[str, str]] = set()  # (verb, path)
        self._prefixes: list[tuple[str, str]] = []  # (verb, what the path begins with)
        for rule in rules:
            names = rule.get("resourceNames") or ()
            for triple in _triples(rule):
                if names:
                    self._named.setdefault(triple, set()).update(names)
                else:
                    self._whole.add(triple)
            for verb, path in product(rule.get("verbs") or (), rule.get("nonResourceURLs") or ()):
                if path.endswith(ANY):
                    self._prefixes.append((verb, path[:-1]))
                else:
                    self._paths.add((verb, path))

    def allow(self, wanted: Attributes) -> bool:
        if wanted.path:
            return self.allow_path(wanted.verb, wanted.path)
        return self.allow_resource(wanted.verb, wanted.group, wanted.resource, wanted.name)

    def allow_path(self, verb: str, path: str) -> bool:
        if (verb, path) in self._paths or (ANY, path) in self._paths:
            return True
        return any(known in (verb, ANY) and path.startswith(prefix) for known, prefix in self._prefixes)

    def allow_resource(self, verb: str, group: str, resource: str, name: str = "") -> bool:
        _, slash, subresource = resource.partition("/")
        resources = (resource, ANY, f"*/{subresource}") if slash else (resource, ANY)
        triples = list(product((verb, ANY), (group, ANY), resources))
        if not self._whole.isdisjoint(triples):
            return True
        named = self._named
        return bool(name and named) and any(name in named.get(triple, ()) for triple in triples)

    def cover(self, rule: JSON) -> bool:
        """Whether everything that `rule` would give is in here."""
        names = rule.get("resourceNames") or ("",)
        resources = all(self.allow_resource(*t, name) for t, name in product(_triples(rule), names))
        urls = product(rule.get("verbs") or (), rule.get("nonResourceURLs") or ())
        return resources and all(self.allow_path(verb, path) for verb, path in urls)


def _triples(rule: JSON) -> Iterator[Triple]:
    return product(rule.get("verbs") or (), rule.get("apiGroups") or (), rule.get("resources") or ())
