"""x-kubernetes-validations: the CEL rules of a schema, asked of every value they stand beside.

`self` is the value, `oldSelf` what it was: a rule that names oldSelf is asked only where there is one, or is given an
optional with optionalOldSelf. Fields whose names CEL can't say are escaped (`__dash__`); a number is a double, a time a
string. Follows KEP-2876 and apiextensions-apiserver pkg/apiserver/schema/cel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.causes import invalid, not_supported, required
from kubesvc.apiserver.custom import cel, structural
from kubesvc.apiserver.custom.structural import EMBEDDED, RULES
from kubesvc.apiserver.custom.validation import ABSENT, correlated, type_name
from kubesvc.apiserver.fields import MOST_CAUSES

_OLD = re.compile(r"\boldSelf\b")
_OPTIONAL_OLD = "(size(oldSelf) == 0 ? optional.none() : optional.of(oldSelf[0]))"
_MOST_ASKED = 20_000  # rules in one request
_LONGEST_ASKED = 0.5  # seconds of the processor that they may take together
_LONGEST = 8 * 1024  # bytes of one expression
_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
_PREFIXES = {
    "FieldValueForbidden": "Forbidden: ",
    "FieldValueRequired": "Required value: ",
    "FieldValueDuplicate": "Duplicate value: ",
}
_RESERVED = frozenset(
    ("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
     "let", "loop", "package", "namespace", "return", "var", "void", "while")
)  # fmt: skip
_SPELLED = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))


def validate(schema: JSON, value: Any, old: Any, spent: Callable[[], float]) -> list[Cause]:
    """Why the rules of `schema` refuse an object; `old` is what it was, or ABSENT. `spent` tells the seconds of the
    processor that this thread has taken."""
    return list(islice(_Asking(spent).at(schema, value, old, "", root=True), MOST_CAUSES))


def program(rule: JSON) -> cel.Program:
    """Raises CelError."""
    text: str = rule["rule"]
    return cel.compiled(_OLD.sub(_OPTIONAL_OLD, text) if rule.get("optionalOldSelf") else text)


def has_rules(schema: JSON) -> bool:
    return any(found.get(RULES) for found, _ in structural.walk(schema, ""))


def check(schema: JSON, path: str) -> list[Cause]:
    """Why the rules of a checked schema can't be a version's."""
    return [cause for found, where in structural.walk(schema, path) for cause in _check(found, f"{where}.{RULES}")]


def _check(schema: JSON, path: str) -> Iterator[Cause]:
    for index, rule in enumerate(schema.get(RULES) or ()):
        here = f"{path}[{index}]"
        if not isinstance(rule, dict) or not isinstance(rule.get("rule"), str) or not rule["rule"].strip():
            yield required(f"{here}.rule", "rule is not specified")
            continue
        if (reason := rule.get("reason", _REASONS[0])) not in _REASONS:
            yield not_supported(f"{here}.reason", reason, _REASONS)
        if len(rule["rule"]) > _LONGEST:
            yield Cause("FieldValueTooLong", f"Too long: may not be more than {_LONGEST} bytes", f"{here}.rule")
            continue
        for word in ("rule", "messageExpression"):
            if (text := rule.get(word)) is None:
                continue
            try:
                program({**rule, "rule": text})
            except cel.CelError as error:
                if not error.unsupported:
                    yield invalid(f"{here}.{word}", text, f"compilation failed: {error}")


def unenforced(schema: JSON, path: str) -> list[str]:
    """What of the schema's rules and patterns nobody enforces, and why."""
    found: list[str] = []
    for one, where in structural.judges(schema, path):
        if one.get("pattern") and (why := "" if cel.AVAILABLE else cel.MISSING):
            found.append(f"{where}.pattern is not enforced: {why}")
        for index, rule in enumerate(one.get(RULES) or ()):
            here = f"{where}.{RULES}[{index}]"
            try:
                program(rule)
                here, text = f"{here}.messageExpression", rule.get("messageExpression")
                if text:
                    program({**rule, "rule": text})
            except cel.CelError as error:
                found.append(f"{here} is not {'used' if here.endswith('Expression') else 'enforced'}: {error}")
            except (TypeError, KeyError):
                continue  # for `check` to say
    return found


class _Asking:
    def __init__(self, spent: Callable[[], float]) -> None:
        self._asked = 0
        self._spent, self._until = spent, spent() + _LONGEST_ASKED

    def at(self, schema: JSON, value: Any, old: Any, path: str, *, root: bool = False) -> Iterator[Cause]:
        if value is None:
            return
        if schema.get(RULES) and _right_kind(schema, value):
            yield from self._ask(schema, value, old, path, root)
        if isinstance(value, dict):
            values = structural.values_of(schema)
            properties = schema.get("properties") or {}
            if values is None and not properties:
                return
            for name, item in value.items():
                field = properties.get(name, values)
                if field is not None:
                    before = old.get(name, ABSENT) if isinstance(old, dict) else ABSENT
                    yield from self.at(field, item, before, f"{path}.{name}" if path else name)
        elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
            find = correlated(schema, old)
            for index, item in enumerate(value):
                yield from self.at(items, item, find(item), f"{path}[{index}]")

    def _ask(self, schema: JSON, value: Any, old: Any, path: str, root: bool) -> Iterator[Cause]:
        variables: JSON = {"self": shaped(schema, value, root=root)}
        same = old is not ABSENT and old == value
        for rule in schema[RULES]:
            optional, transition = bool(rule.get("optionalOldSelf")), _OLD.search(rule["rule"]) is not None
            if (transition and old is ABSENT and not optional) or (same and not transition):
                continue
            self._asked += 1
            if self._asked > _MOST_ASKED:
                yield invalid(path, type_name(value), "validation failed: the object has too many values with rules")
                return
            if self._spent() > self._until:
                why = f"validation failed: the rules take more than {_LONGEST_ASKED:g} s for this object"
                yield invalid(path, type_name(value), why)
                return
            before = [] if old is ABSENT else [shaped(schema, old, root=root)]
            variables["oldSelf"] = before if optional else (before[0] if before else None)
            cause = _judge(schema, rule, variables, value, path)
            if cause is not None:
                yield cause


def _judge(schema: JSON, rule: JSON, variables: JSON, value: Any, path: str) -> Cause | None:
    shown = type_name(value) if isinstance(value, (dict, list)) else value
    try:
        if program(rule)(variables) is True:
            return None
    except cel.CelError as error:
        if error.unsupported or ("overload" in str(error) and _temporal(schema)):
            return None
        return invalid(path, shown, f"failed to evaluate rule {rule['rule']!r}: {error}")
    reason = rule.get("reason", _REASONS[0])
    at = path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "").removeprefix(".")
    message = _message(rule, variables)
    if reason == _REASONS[0]:
        return invalid(at, shown, message)
    return Cause(reason, _PREFIXES[reason] + message, at)


def _message(rule: JSON, variables: JSON) -> str:
    if text := rule.get("messageExpression"):
        try:
            made = program({**rule, "rule": text})(variables)
            if isinstance(made, str) and made.strip() and "\n" not in made:
                return made
        except cel.CelError:
            pass
    return rule.get("message") or f"failed rule: {rule['rule'].strip()}"


def _temporal(schema: JSON) -> bool:
    return any(one.get("format") in ("date", "date-time", "duration") for one, _ in structural.walk(schema, ""))


def _right_kind(schema: JSON, value: Any) -> bool:
    """A value of the wrong type is the schema's to refuse."""
    wanted, found = schema.get("type", ""), type_name(value)
    return not wanted or wanted == found or (wanted == "number" and found == "integer")


def shaped(schema: JSON, value: Any, *, root: bool = False) -> Any:
    """`value` as CEL sees it: doubles where the schema says number, fields under names that can be said."""
    if isinstance(value, dict):
        properties, values = schema.get("properties") or {}, structural.values_of(schema)
        if root or schema.get(EMBEDDED):
            properties = {**_META, **properties}
        if not properties:
            return {name: shaped(values or {}, item) for name, item in value.items()}
        return {
            _escaped(name) if name in properties else name: shaped(properties.get(name) or values or {}, item)
            for name, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        items = schema.get("items")
        return [shaped(items if isinstance(items, dict) else {}, item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and schema.get("type") == "number":
        return float(value)
    if isinstance(value, float) and schema.get("type") == "integer":
        return int(value)
    return value


_META: JSON = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}


def _escaped(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    for plain, spelled in _SPELLED:
        if plain in name:
            name = name.replace(plain, spelled)
    return name
