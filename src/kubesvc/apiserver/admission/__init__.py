"""Admission: what an object must look like before it is stored.

    tree ─► default ─► prepare ─► validate ─► claims ─► one store commit
            (fill in)  (what the   (causes)    (addresses, node ports)
                        server owns)

Pure: trees in, trees changed in place, lists of causes out. A file a kind; kinds without one get what is common to all.
A name made from generateName must be there before `default`. Follows pkg/apis/*/v1/defaults.go,
pkg/registry/*/strategy.go and pkg/apis/*/validation of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from kubesvc.api import registry
from kubesvc.api.errors import ApiError, Cause
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.admission import metadata, own_annotations, service_claims
from kubesvc.apiserver.admission.context import ClaimChange, Cluster, Context, Taken
from kubesvc.apiserver.admission.rules import Rules
from kubesvc.apiserver.custom import instances
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.fields import check_metadata, check_types

__all__ = [
    "ClaimChange",
    "Cluster",
    "Context",
    "Taken",
    "address_object",
    "claim_lost",
    "claims",
    "default",
    "prepare",
    "validate",
    "warnings",
]


def _collect() -> dict[tuple[str, str], Rules]:
    """What the files beside this one say of their kinds, each in its `ADMITS`: a new file needs no mention here."""
    found: dict[tuple[str, str], Rules] = {}
    for module in iter_modules(__path__):
        for kind, rules in getattr(import_module(f"{__name__}.{module.name}"), "ADMITS", ()):
            found[kind.group, kind.plural] = rules
    return found


_RULES = _collect()  # (group, plural) -> what is special about that kind
_COMMON = Rules()


def _rules(kind: Kind) -> Rules:
    return _RULES.get((kind.group, kind.plural), _COMMON)


def default(kind: Kind, tree: JSON) -> None:
    """Fill in what the client left out, in place, for creates and updates. Nulls mean "not given" and go.

    A tree of the wrong types is left as it is: `validate` will say so.
    """
    if isinstance(kind, CustomKind):
        instances.default(kind, tree)
        return
    _drop_nulls(tree)
    tree.setdefault("metadata", {})
    try:
        _rules(kind).default(tree)
    except _MISTYPED:
        _excuse(kind, tree)


_MISTYPED = (AttributeError, KeyError, TypeError, ValueError)


def _excuse(kind: Kind, tree: JSON) -> None:
    """Code that takes a tree to be of its kind's types may fail over one that isn't: that is for `validate` to say.
    Any other failure is a mistake of ours. (Checking first would cost every good tree what only a bad one needs.)"""
    if not check_types(kind, tree):
        raise


def _drop_nulls(node: JSON | list[Any]) -> None:
    if isinstance(node, dict):
        if None in node.values():
            for name in [n for n, value in node.items() if value is None]:
                del node[name]
        inside: Iterable[Any] = node.values()
    else:
        inside = node
    for value in inside:
        if isinstance(value, (dict, list)):
            _drop_nulls(value)


def prepare(kind: Kind, new: JSON, old: JSON | None, context: Context) -> None:
    """Put right what the server owns, in place: status apart from spec, generation, metadata, allocated fields."""
    if isinstance(kind, CustomKind):
        if not check_metadata(new):
            instances.prepare(kind, new, old, context)
        return
    rules = _rules(kind)
    try:
        if old is None:
            metadata.prepare_create(new)
        else:
            metadata.prepare_update(new, old)
        rules.prepare(new, old, context)
        if rules.counted:
            _count(new, old)
    except _MISTYPED:
        _excuse(kind, new)


def _count(new: JSON, old: JSON | None) -> None:
    """metadata.generation counts changes of the spec, from 1."""
    before = (old["metadata"].get("generation") or 1) if old is not None else 0
    changed = old is None or (new.get("spec") or {}) != (old.get("spec") or {})
    new["metadata"]["generation"] = before + 1 if changed else before


def validate(kind: Kind, new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    """Why `new` can't be stored; empty when it can."""
    if isinstance(kind, CustomKind):
        return check_metadata(new) or instances.validate(kind, new, old, context)
    if wrong := check_types(kind, new):
        return wrong
    rules = _rules(kind)
    causes = metadata.validate(new, rules.name if old is None else metadata.path_segment, namespaced=kind.namespaced)
    if old is not None:
        causes += metadata.validate_update(new, old)
    return causes + rules.validate(new, old, context)


def warnings(kind: Kind, tree: JSON) -> list[str]:
    """Texts for Warning headers: what is deprecated, what is ignored, what nothing here acts on."""
    found: list[str] = []
    if isinstance(kind, CustomKind):
        return found
    try:
        found = [*_rules(kind).warnings(tree), *own_annotations.unknown(kind, tree)]
    except _MISTYPED:
        _excuse(kind, tree)
    if not kind.acted_on:
        found.append(f"{kind.kind} is stored, but nothing in this cluster acts on it")
    return found


def claims(kind: Kind, new: JSON | None, old: JSON | None, context: Context, taken: Taken) -> list[ClaimChange]:
    """What the commit must claim and release; chooses addresses and node ports, changing `new` in place.

    `new` is None for a deletion. After a lost dynamic claim, ask again with the tree as it was before this call and
    the loser taken. Raises Invalid for an address outside every range, InternalError when nothing is left to choose.
    """
    return service_claims.claims(new, old, context, taken) if kind is registry.SERVICE else []


def claim_lost(kind: Kind, new: JSON, change: ClaimChange) -> ApiError:
    """The error for a claim the client asked for by value that somebody else holds."""
    return service_claims.claim_lost(new, change)


def address_object(address: str, service: JSON, context: Context) -> JSON:
    """The IPAddress object that claims `address` for `service`. The server adds the uid."""
    return service_claims.address_object(address, service, context)
