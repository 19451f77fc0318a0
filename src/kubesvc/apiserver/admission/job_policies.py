"""The rules of a Job's policies: which failures count, when it has succeeded, what is replaced, who carries it out.

Source: pkg/apis/batch/validation, validatePodFailurePolicy, validateSuccessPolicy, validatePodReplacementPolicy, and
IsDomainPrefixedPath of apimachinery.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.causes import (
    duplicate,
    invalid,
    invalid_as_whole,
    not_supported,
    required,
    shown,
    too_long,
    too_many,
)
from kubesvc.apiserver.admission.containers import NEGATIVE

INDEXED_ONLY = "requires indexed completion mode"
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATUSES = ("False", "True", "Unknown")
_MOST_RULES, _MOST_PATTERNS, _MOST_CODES = 20, 20, 255
_LONGEST_INDEXES = 64 * 1024
_LONGEST_MANAGER = 63
_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"


def managed_by(name: str, path: str) -> Iterator[Cause]:
    host, _, rest = name.partition("/")
    if not name:
        yield required(path)
    elif not host or not rest:
        yield invalid(path, name, 'must be a domain-prefixed path (such as "acme.io/foo")')
    else:
        for why in names.subdomain(host):
            yield invalid(path, host, why)
        if not re.fullmatch(_PATH, rest):
            yield invalid(path, rest, f"Invalid path (regex used for validation is '{_PATH}')")
    if len(name) > _LONGEST_MANAGER:
        yield too_long(path, _LONGEST_MANAGER)


def pod_replacement_policy(spec: JSON, path: str) -> Iterator[Cause]:
    value = spec.get("podReplacementPolicy")
    allowed = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    if value is not None and value not in allowed:
        yield not_supported(path, value, allowed)


def pod_failure_policy(spec: JSON, path: str) -> Iterator[Cause]:
    rules = spec["podFailurePolicy"].get("rules") or []
    if len(rules) > _MOST_RULES:
        yield too_many(f"{path}.rules", len(rules), _MOST_RULES)
    for number, rule in enumerate(rules):
        yield from _failure_rule(spec, rule, f"{path}.rules[{number}]")


def _failure_rule(spec: JSON, rule: JSON, path: str) -> Iterator[Cause]:
    action = rule.get("action") or ""
    if action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
        yield invalid(f"{path}.action", action, "requires the backoffLimitPerIndex to be set")
    yield from _choice(action, _ACTIONS, f"{path}.action")
    codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if codes is not None:
        yield from _exit_codes(spec, codes, f"{path}.onExitCodes")
    if patterns:
        yield from _pod_conditions(patterns, f"{path}.onPodConditions")
    if codes is not None and patterns:
        yield invalid_as_whole(path, "specifying both OnExitCodes and OnPodConditions is not supported")
    if codes is None and not patterns:
        yield invalid_as_whole(path, "specifying one of OnExitCodes and OnPodConditions is required")


def _choice(value: str, allowed: Sequence[str], path: str) -> Iterator[Cause]:
    if not value:
        yield required(path, f"valid values: [{' '.join(map(shown, allowed))}]")
    elif value not in allowed:
        yield not_supported(path, value, allowed)


def _exit_codes(spec: JSON, asked: JSON, path: str) -> Iterator[Cause]:
    operator, codes, container = asked.get("operator") or "", asked.get("values") or [], asked.get("containerName")
    yield from _choice(operator, _OPERATORS, f"{path}.operator")
    pod = (spec.get("template") or {}).get("spec") or {}
    named = {c.get("name") for group in ("containers", "initContainers") for c in pod.get(group) or ()}
    if container is not None and container not in named:
        why = "must be one of the container or initContainer names in the pod template"
        yield invalid(f"{path}.containerName", container, why)
    where = f"{path}.values"
    if not codes:
        yield invalid(where, codes, "at least one value is required")
    elif len(codes) > _MOST_CODES:
        yield too_many(where, len(codes), _MOST_CODES)
    for number, code in enumerate(codes):
        if operator == "In" and code == 0:
            yield invalid(f"{where}[{number}]", code, "must not be 0 for the In operator")
        if code in codes[:number]:
            yield duplicate(f"{where}[{number}]", code)
    if codes != sorted(codes):
        yield invalid(where, codes, "must be ordered")


def _pod_conditions(patterns: Sequence[JSON], path: str) -> Iterator[Cause]:
    if len(patterns) > _MOST_PATTERNS:
        yield too_many(path, len(patterns), _MOST_PATTERNS)
    for number, pattern in enumerate(patterns):
        type_ = pattern.get("type") or ""
        for why in names.qualified_name(type_):
            yield invalid(f"{path}[{number}].type", type_, why)
        yield from _choice(pattern.get("status") or "", _STATUSES, f"{path}[{number}].status")


# ── success ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def success_policy(spec: JSON, path: str) -> Iterator[Cause]:
    policy = spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        yield invalid(path, policy, INDEXED_ONLY)
        return
    rules = policy.get("rules") or []
    if not rules:
        yield required(f"{path}.rules", "at least one rules must be specified when the successPolicy is specified")
    if len(rules) > _MOST_RULES:
        yield too_many(f"{path}.rules", len(rules), _MOST_RULES)
    if spec.get("completions") is not None:
        for number, rule in enumerate(rules):
            yield from _success_rule(rule, spec["completions"], f"{path}.rules[{number}]")


def _success_rule(rule: JSON, completions: int, path: str) -> Iterator[Cause]:
    indexes, count = rule.get("succeededIndexes"), rule.get("succeededCount")
    if indexes is None and count is None:
        yield required(path, "at least one of succeededCount or succeededIndexes must be specified")
    total = 0
    if indexes is not None:
        where = f"{path}.succeededIndexes"
        if len(indexes) > _LONGEST_INDEXES:
            yield too_long(where, _LONGEST_INDEXES)
        try:
            total = count_indexes(indexes, completions)
        except ValueError as error:
            yield invalid(where, indexes, f"error parsing succeededIndexes: {error}")
    if count is None:
        return
    where = f"{path}.succeededCount"
    if count < 0:
        yield invalid(where, count, NEGATIVE)
    if count > completions:
        yield invalid(
            where, count, f"must be less than or equal to {completions} (the number of specified completions)"
        )
    if indexes is not None and count > total:
        of = "the number of indexes in the specified succeededIndexes field"
        yield invalid(where, count, f"must be less than or equal to {total} ({of})")


def count_indexes(text: str, completions: int) -> int:
    """How many indexes below `completions` are in 0-2,5. Raises ValueError with what is wrong."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        limits = part.split("-")
        if len(limits) > 2:
            raise ValueError(
                f"the fragment {shown(part)} violates the requirement that an index interval can have at most two "
                "parts separated by '-'"
            )
        first, *rest = [_index(limit, completions) for limit in limits]
        if rest and first >= rest[0]:
            raise ValueError(f"non-increasing order, previous: {first}, current: {rest[0]}")
        if total and last >= first:
            raise ValueError(f"non-increasing order, previous: {last}, current: {first}")
        last = rest[0] if rest else first
        total += last - first + 1
    return total


def _index(text: str, completions: int) -> int:
    if not re.fullmatch(r"[+]?[0-9]+", text, re.ASCII):
        raise ValueError(f"cannot convert string to integer for index: {shown(text)}")
    if int(text) >= completions:
        raise ValueError(f"too large index: {shown(text)}")
    return int(text)
