"""An audit.k8s.io/v1 Policy: the first rule that matches a request says how much of it is written down.

Follows k8s.io/apiserver/pkg/audit/policy/checker.go and validation of the audit API.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from kubesvc.apiserver.access.attributes import Attributes


class Level(IntEnum):
    NONE, METADATA, REQUEST, RESPONSE = range(4)


LEVELS = {"None": Level.NONE, "Metadata": Level.METADATA, "Request": Level.REQUEST, "RequestResponse": Level.RESPONSE}
NAMES = {level: name for name, level in LEVELS.items()}
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


class PolicyError(Exception):
    """What is wrong with a policy: the field, the value, what was expected."""


class Resources(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    group: str = ""
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()


class Rule(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    level: str
    users: tuple[str, ...] = ()
    user_groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[Resources, ...] = ()
    namespaces: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(name="nonResourceURLs", default=())
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool | None = None

    def matches(self, user: str, groups: Sequence[str], wanted: Attributes) -> bool:
        if self.users and user not in self.users:
            return False
        if self.user_groups and not set(self.user_groups).intersection(groups):
            return False
        if self.verbs and wanted.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            if wanted.path or (self.namespaces and wanted.namespace not in self.namespaces):
                return False
            return not self.resources or any(_names(entry, wanted) for entry in self.resources)
        if self.non_resource_urls:
            return any(_covers(pattern, wanted.path) for pattern in self.non_resource_urls)
        return True


def _names(entry: Resources, wanted: Attributes) -> bool:
    if entry.group != wanted.group:
        return False
    if not entry.resources:
        return True
    if entry.resource_names and wanted.name not in entry.resource_names:
        return False
    plural, slash, subresource = wanted.resource.partition("/")
    known = {"*", wanted.resource}
    if slash:
        known |= {f"*/{subresource}", f"{plural}/*"}
    return not known.isdisjoint(entry.resources)


def _covers(pattern: str, path: str) -> bool:
    if not path:
        return False
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


class Policy(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    rules: tuple[Rule, ...]
    api_version: str = "audit.k8s.io/v1"
    kind: str = "Policy"
    metadata: dict[str, object] = {}
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool = False

    def rule(self, user: str, groups: Sequence[str], wanted: Attributes) -> Rule | None:
        return next((rule for rule in self.rules if rule.matches(user, groups, wanted)), None)


PLAIN = Policy(rules=(Rule(level="Metadata"),), omit_stages=("RequestReceived",))
"""What holds where no policy is given."""


def parse(tree: object) -> Policy:
    """Raises PolicyError."""
    try:
        found = msgspec.convert(tree, Policy)
    except msgspec.ValidationError as error:
        raise PolicyError(f"not an audit.k8s.io/v1 Policy: {error}") from error
    if (found.api_version, found.kind) != ("audit.k8s.io/v1", "Policy"):
        raise PolicyError(f"{found.api_version} {found.kind}: expected audit.k8s.io/v1 Policy")
    if not found.rules:
        raise PolicyError("rules: expected at least one")
    for at, rule in enumerate(found.rules):
        if rule.level not in LEVELS:
            raise PolicyError(f"rules[{at}].level {rule.level!r}: expected one of {', '.join(LEVELS)}")
        if rule.non_resource_urls and (rule.resources or rule.namespaces):
            raise PolicyError(f"rules[{at}].nonResourceURLs: cannot be used with resources or namespaces")
        for url in rule.non_resource_urls:
            if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
                raise PolicyError(f"rules[{at}].nonResourceURLs {url!r}: expected /PATH, * only as its last character")
        _check_stages(rule.omit_stages, f"rules[{at}].omitStages")
    _check_stages(found.omit_stages, "omitStages")
    return found


def _check_stages(stages: Sequence[str], path: str) -> None:
    for stage in stages:
        if stage not in STAGES:
            raise PolicyError(f"{path} {stage!r}: expected one of {', '.join(STAGES)}")
