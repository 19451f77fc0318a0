"""Label and field selectors: parsing what clients send, matching objects against it.

Grammar of a label selector (apimachinery pkg/labels):  key, !key, key=value, key==value, key!=value,
key in (a,b), key notin (a,b), joined by commas; all must hold. A field selector has only =, == and !=.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import LabelSelector


class Requirement(NamedTuple):
    """One condition on one key. `operator` is in, notin, exists or !; values is empty for the latter two."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case _:
                return value is None


Selector = tuple[Requirement, ...]
"""All requirements must hold; the empty selector matches everything."""

_TERM = re.compile(
    r"""\s*(?:
        (?P<set>[^\s,!=()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)
      | !\s*(?P<absent>[^\s,!=()]+)
      | (?P<key>[^\s,!=()]+)\s*(?:(?P<eq>!=|==|=)\s*(?P<value>[^\s,!=()]*))?
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def parse_label_selector(text: str) -> Selector:
    """Requirements of `text`. Raises BadRequest, naming the part that can't be read."""
    requirements: list[Requirement] = []
    position = 0
    while position < len(text.rstrip()):
        found = _TERM.match(text, position)
        if not found or found.end() == position:
            raise BadRequest(f"unable to parse requirement: found {text[position:]!r} in label selector {text!r}")
        position = found.end()
        if key := found["set"]:
            values = frozenset(v.strip() for v in found["values"].split(","))
            requirements.append(Requirement(key, found["op"], values))
        elif key := found["absent"]:
            requirements.append(Requirement(key, "!", frozenset()))
        elif found["eq"]:
            operator = "notin" if found["eq"] == "!=" else "in"
            requirements.append(Requirement(found["key"], operator, frozenset([found["value"]])))
        else:
            requirements.append(Requirement(found["key"], "exists", frozenset()))
    return tuple(requirements)


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_label_selector(selector: LabelSelector) -> Selector:
    """Requirements of a typed LabelSelector (matchLabels and matchExpressions)."""
    equal = [Requirement(k, "in", frozenset([v])) for k, v in selector.match_labels.items()]
    terms = [
        Requirement(e.key, _OPERATORS.get(e.operator, "in"), frozenset(e.values)) for e in selector.match_expressions
    ]
    return tuple(equal + terms)


def from_labels(labels: Mapping[str, str]) -> Selector:
    """Requirements of a plain map, as a Service's selector is."""
    return tuple(Requirement(k, "in", frozenset([v])) for k, v in labels.items())


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    return all(requirement.matches(labels) for requirement in selector)


class FieldRequirement(NamedTuple):
    path: str  # dotted, such as spec.nodeName
    equal: bool
    value: str


def parse_field_selector(text: str, allowed: Callable[[str], bool]) -> tuple[FieldRequirement, ...]:
    """Requirements of a field selector. Raises BadRequest for bad syntax or a field that `allowed` refuses."""
    requirements: list[FieldRequirement] = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([\w.\-/\[\]]+)\s*(!=|==|=)\s*(.*)", term)
        if not found:
            raise BadRequest(f"invalid field selector {text!r}: can't understand {term!r}; use FIELD=VALUE")
        path, operator, value = found.groups()
        if not allowed(path):
            raise BadRequest(f"field label not supported: {path}")
        requirements.append(FieldRequirement(path, operator != "!=", value))
    return tuple(requirements)
