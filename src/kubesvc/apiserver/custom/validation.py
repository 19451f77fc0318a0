"""A value against a structural schema, complained about in upstream's words.

What an update leaves as it was isn't looked at again, so that a schema may become stricter while old objects live
(ratcheting, KEP-4008). Follows kube-openapi pkg/validation/validate and apiextensions-apiserver
pkg/apiserver/validation.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON, parse_time
from kubesvc.apiserver.admission.causes import duplicate, invalid, not_supported, required, too_many
from kubesvc.apiserver.custom import structural
from kubesvc.apiserver.custom.structural import EMBEDDED, INT_OR_STRING, LIST_KEYS, LIST_TYPE

Match = Callable[[str, str], bool]
"""(pattern, text) -> whether the pattern is found in the text, in time that grows with the text alone."""

ABSENT: Any = object()
"""The old value, where there is none to compare with."""

_MOST = 100  # causes: who sends a million wrong items needn't hear of each


def validate(schema: JSON, value: Any, old: Any, match: Match) -> list[Cause]:
    """Why an object isn't of `schema`. `old` is what it was, or ABSENT."""
    causes: list[Cause] = []
    for cause in _Walk(match).at(schema, value, old, "", root=True):
        causes.append(cause)
        if len(causes) == _MOST:
            break
    return causes


def type_name(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


class _Walk:
    def __init__(self, match: Match) -> None:
        self._match = match

    def at(self, schema: JSON, value: Any, old: Any, path: str, *, root: bool = False) -> Iterator[Cause]:
        if old is not ABSENT and old == value:
            return
        if value is None and schema.get("nullable"):
            return
        if (cause := _mistyped(schema, value, path)) is not None:
            yield cause
            return
        yield from self._values(schema, value, path)
        if isinstance(value, dict):
            yield from self._object(schema, value, old, path, root)
        elif isinstance(value, list):
            yield from self._array(schema, value, old, path)

    def _object(self, schema: JSON, value: JSON, old: Any, path: str, root: bool) -> Iterator[Cause]:
        properties = schema.get("properties") or {}
        values = structural.values_of(schema)
        skipped = ("apiVersion", "kind", "metadata") if root else ()
        if schema.get(EMBEDDED):
            for name in ("apiVersion", "kind"):
                if not value.get(name):
                    yield required(_join(path, name), "must not be empty")
        for name, item in value.items():
            field = properties.get(name, values)
            if field is not None and name not in skipped:
                before = old.get(name, ABSENT) if isinstance(old, dict) else ABSENT
                yield from self.at(field, item, before, _join(path, name))

    def _array(self, schema: JSON, value: list[Any], old: Any, path: str) -> Iterator[Cause]:
        before = correlated(schema, old)
        seen: set[bytes] = set()
        kind, keys = schema.get(LIST_TYPE), schema.get(LIST_KEYS) or ()
        for index, item in enumerate(value):
            here = f"{path}[{index}]"
            if kind in ("map", "set"):
                if (key := identity(item, keys if kind == "map" else ())) in seen:
                    shown = {k: item.get(k) for k in keys} if kind == "map" and isinstance(item, dict) else item
                    yield duplicate(here, shown)
                seen.add(key)
            if isinstance(items := schema.get("items"), dict):
                yield from self.at(items, item, before(item), here)

    def _values(self, schema: JSON, value: Any, path: str) -> Iterator[Cause]:
        """All that a schema says beside types: also what is under allOf, anyOf, oneOf and not."""
        if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
            yield not_supported(path, value, schema["enum"])
        if isinstance(value, str):
            yield from self._string(schema, value, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield from _number(schema, value, path)
        elif isinstance(value, list):
            yield from _count(schema, len(value), path, "Items", "items")
        elif isinstance(value, dict):
            yield from _count(schema, len(value), path, "Properties", "properties")
            for name in schema.get("required") or ():
                if name not in value:
                    yield required(_join(path, name))
        yield from self._combined(schema, value, path)

    def _string(self, schema: JSON, value: str, path: str) -> Iterator[Cause]:
        if (longest := schema.get("maxLength")) is not None and len(value) > longest:
            yield Cause("FieldValueTooLong", f"Too long: may not be more than {longest} bytes", path)
        if (shortest := schema.get("minLength")) is not None and len(value) < shortest:
            yield invalid(path, value, f"{path} in body should be at least {shortest} chars long")
        pattern = schema.get("pattern")
        if pattern and not self._match(pattern, value):
            yield invalid(path, value, f"{path} in body should match '{pattern}'")
        form = schema.get("format")
        if form in _FORMATS and not _formatted(form, value):
            yield invalid(path, value, f"{path} in body must be of type {form}: {_plain(value)}")

    def _combined(self, schema: JSON, value: Any, path: str) -> Iterator[Cause]:
        shown = f'"{path}"'
        for part in schema.get("allOf") or ():
            yield from self._partly(part, value, path)
        if (parts := schema.get("anyOf")) and not self._fitting(parts, value, path):
            yield invalid(path, _brief(value), f"{shown} must validate at least one schema (anyOf)")
        if (parts := schema.get("oneOf")) and (found := self._fitting(parts, value, path)) != 1:
            why = f"must validate one and only one schema (oneOf). Found {found or 'none'} valid"
            yield invalid(path, _brief(value), f"{shown} {why}")
        if "not" in schema and not any(self._partly(schema["not"], value, path)):
            yield invalid(path, _brief(value), f"{shown} must not validate the schema (not)")

    def _fitting(self, parts: list[JSON], value: Any, path: str) -> int:
        return sum(not any(self._partly(part, value, path)) for part in parts)

    def _partly(self, part: JSON, value: Any, path: str) -> Iterator[Cause]:
        """A schema under allOf and its like: it judges what is there."""
        if (kind := part.get("type")) and type_name(value) != kind:
            yield invalid(path, _brief(value), f"{path} in body must be of type {kind}: {_plain(type_name(value))}")
            return
        yield from self._values(part, value, path)
        if isinstance(value, dict):
            for name, field in (part.get("properties") or {}).items():
                if name in value:
                    yield from self._partly(field, value[name], _join(path, name))
            if isinstance(values := part.get("additionalProperties"), dict):
                for name in value.keys() - (part.get("properties") or {}).keys():
                    yield from self._partly(values, value[name], _join(path, name))
        elif isinstance(value, list) and isinstance(items := part.get("items"), dict):
            for index, item in enumerate(value):
                yield from self._partly(items, item, f"{path}[{index}]")


def identity(item: Any, keys: Any) -> bytes:
    """What makes an item of a set or a map list the same as another."""
    held = [item.get(key) for key in keys] if keys and isinstance(item, dict) else item
    return msgspec.json.encode(held, order="deterministic")


def correlated(schema: JSON, old: Any) -> Callable[[Any], Any]:
    """Item -> what it was before: by its keys in a map list; in other lists nothing is known to be the same."""
    keys = schema.get(LIST_KEYS)
    if schema.get(LIST_TYPE) != "map" or not keys or not isinstance(old, list):
        return lambda item: ABSENT
    before = {identity(item, keys): item for item in old}
    return lambda item: before.get(identity(item, keys), ABSENT)


def _mistyped(schema: JSON, value: Any, path: str) -> Cause | None:
    found, wanted = type_name(value), schema.get("type", "")
    if schema.get(INT_OR_STRING):
        wanted, good = "integer,string", found in ("integer", "string")
    elif wanted == "number":
        good = found in ("integer", "number")
    elif wanted == "integer":
        good = found == "integer" or (found == "number" and float(value).is_integer())
    else:
        good = not wanted or found == wanted
    if good:
        return None
    return Cause(
        "FieldValueTypeInvalid", f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"', path
    )


def _number(schema: JSON, value: float, path: str) -> Iterator[Cause]:
    if (most := schema.get("maximum")) is not None and (
        value > most or (schema.get("exclusiveMaximum") and value == most)
    ):
        word = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        yield invalid(path, value, f"{path} in body should be {word} {most}")
    if (least := schema.get("minimum")) is not None and (
        value < least or (schema.get("exclusiveMinimum") and value == least)
    ):
        word = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        yield invalid(path, value, f"{path} in body should be {word} {least}")
    if (step := schema.get("multipleOf")) and value % step:
        yield invalid(path, value, f"{path} in body should be a multiple of {step}")
    limit = {"int32": 2**31, "int64": 2**63}.get(schema.get("format", ""))
    if limit is not None and not -limit <= value < limit:
        yield invalid(path, value, f"{path} in body must be of type {schema['format']}: {_plain(value)}")


def _count(schema: JSON, found: int, path: str, word: str, name: str) -> Iterator[Cause]:
    if (most := schema.get(f"max{word}")) is not None and found > most:
        yield too_many(path, found, most)
    if (least := schema.get(f"min{word}")) is not None and found < least:
        yield invalid(path, found, f"{path} in body should have at least {least} {name}")


# ── formats: those that upstream enforces; any other is a remark ──────────────────────────────────────────────────────


def _moment(text: str) -> None:
    if parse_time(text).tzinfo is None or "T" not in text.upper():
        raise ValueError(text)


def _decoded(text: str) -> None:
    base64.b64decode(text, validate=True)


_DURATION = re.compile(r"[-+]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h|d|w)\s*)+|0")
_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_HOSTNAME = re.compile(r"(?=.{1,255}$)[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_-]{1,63})*\.?")
_FORMATS: dict[str, re.Pattern[str] | Callable[[str], Any]] = {
    "date-time": _moment,
    "date": lambda text: datetime.strptime(text, "%Y-%m-%d"),
    "duration": _DURATION,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "cidr": lambda text: ipaddress.ip_interface(text) if "/" in text else ipaddress.ip_network("no prefix"),
    "uuid": _UUID,
    "email": _EMAIL,
    "hostname": _HOSTNAME,
    "byte": _decoded,
    "uri": re.compile(r"(/|[a-zA-Z][a-zA-Z0-9+.-]*:)[^\x00-\x20\x7f]*"),
    "mac": re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}"),
}


_REMARKS = ("int32", "int64", "float", "double", "password")  # of numbers, or broken by nothing


def unenforced(schema: JSON, path: str) -> list[str]:
    """What of the schema's formats nobody enforces."""
    return [
        f'{where}.format is not enforced: no rule is known for "{form}"'
        for found, where in structural.judges(schema, path)
        if (form := found.get("format")) and form not in _FORMATS and form not in _REMARKS
    ]


def _formatted(form: str, text: str) -> bool:
    rule = _FORMATS[form]
    if isinstance(rule, re.Pattern):
        return rule.fullmatch(text) is not None
    try:
        rule(text)
    except (ValueError, binascii.Error):
        return False
    return True


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _plain(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else msgspec.json.encode(value).decode()


def _brief(value: Any) -> Any:
    return type_name(value) if isinstance(value, (dict, list)) else value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
