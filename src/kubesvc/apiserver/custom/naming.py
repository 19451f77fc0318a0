"""Which names a definition may have: a plural, a kind, a short name belongs to one definition of its group, the first.

Pure: the definitions there are in, the status that one should have out. Source: apiextensions-apiserver
pkg/controller/status/naming_controller.go and pkg/controller/establish.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kubesvc.api.meta import JSON
from kubesvc.api.registry import KINDS
from kubesvc.apiserver.custom.definition import is_true, with_condition


def status(tree: JSON, others: Iterable[JSON], now: datetime) -> JSON:
    """The status of `tree` with the names it may have, and whether it may be served. `others` may hold it too."""
    spec, found = tree["spec"], dict(tree.get("status") or {})
    taken_resources, taken_kinds = _taken(tree, others)
    wanted, accepted = spec["names"], dict(found.get("acceptedNames") or {})
    refused = ""
    for word in ("plural", "singular"):
        refused = _take(wanted, accepted, word, taken_resources) or refused
    short = wanted.get("shortNames") or []
    clash = [name for name in short if name in taken_resources]
    if clash:
        refused = f"ShortNamesConflict|{', '.join(repr(n).replace(chr(39), chr(34)) for n in clash)} is already in use"
    else:
        _set(accepted, "shortNames", list(short))
    for word in ("kind", "listKind"):
        refused = _take(wanted, accepted, word, taken_kinds) or refused
    _set(accepted, "categories", list(wanted.get("categories") or []))
    found["acceptedNames"] = accepted
    reason, _, message = refused.partition("|")
    if refused:
        found = with_condition(found, "NamesAccepted", False, reason, message, now)
        if not is_true(tree, "Established"):
            found = with_condition(found, "Established", False, "NotAccepted", "not all names are accepted", now)
        return found
    found = with_condition(found, "NamesAccepted", True, "NoConflicts", "no conflicts found", now)
    why = "the initial names have been accepted"
    return with_condition(found, "Established", True, "InitialNamesAccepted", why, now)


def _take(wanted: JSON, accepted: JSON, word: str, taken: set[str]) -> str:
    name = wanted.get(word) or ""
    if name and name in taken and accepted.get(word) != name:
        return f'{word[0].upper()}{word[1:]}Conflict|"{name}" is already in use'
    _set(accepted, word, name)
    return ""


def _set(accepted: JSON, word: str, value: str | list[str]) -> None:
    if value:
        accepted[word] = value
    else:
        accepted.pop(word, None)


def _taken(tree: JSON, others: Iterable[JSON]) -> tuple[set[str], set[str]]:
    """(resource names, kinds) that are somebody else's in the group."""
    group, resources, kinds = tree["spec"]["group"], set[str](), set[str]()
    for kind in KINDS.values():
        if kind.group == group:
            resources |= {kind.plural, kind.singular, *kind.short_names}
            kinds |= {kind.kind, f"{kind.kind}List"}
    for other in others:
        if other["spec"]["group"] != group or other["metadata"]["uid"] == tree["metadata"]["uid"]:
            continue
        names = (other.get("status") or {}).get("acceptedNames") or {}
        resources |= {names.get("plural") or "", names.get("singular") or "", *(names.get("shortNames") or ())}
        kinds |= {names.get("kind") or "", names.get("listKind") or ""}
    return resources - {""}, kinds - {""}
