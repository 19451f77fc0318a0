"""Kinds that show another kind's objects in another shape: an Event of events.k8s.io is a core Event, a
HorizontalPodAutoscaler of autoscaling/v1 one of v2.

    the kind as stored ──show──► what a client of the view sees and sends ──keep──► the kind as stored

The two Events differ in the names of fields alone; a version that differs in more has a pair of functions here.
Follows pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from collections.abc import Callable

from kubesvc.api.meta import JSON
from kubesvc.api.registry import EVENT, EVENTS_EVENT, HORIZONTAL_POD_AUTOSCALER_V1, Kind, find
from kubesvc.apiserver import autoscaling
from kubesvc.apiserver.custom import structural
from kubesvc.apiserver.custom.kind import CustomKind

# kind of the view -> (name of a field there, name as stored)
_NAMES: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    (EVENTS_EVENT.group, EVENTS_EVENT.plural): (
        ("regarding", "involvedObject"),
        ("note", "message"),
        ("reportingController", "reportingComponent"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
    )
}

# (apiVersion, plural) of the view -> (show, keep)
_CONVERT: dict[tuple[str, str], tuple[Callable[[JSON], JSON], Callable[[JSON], JSON]]] = {
    (HORIZONTAL_POD_AUTOSCALER_V1.api_version, HORIZONTAL_POD_AUTOSCALER_V1.plural): (
        autoscaling.to_v1,
        autoscaling.to_v2,
    ),
}


def stored_kind(kind: Kind) -> Kind:
    """The kind whose objects are stored: `kind` itself unless it is a view."""
    if kind.stored_as is None or isinstance(kind, CustomKind):
        return kind
    return find(*kind.stored_as) or EVENT


def show(kind: Kind, tree: JSON) -> JSON:
    """A stored object in the shape of `kind`."""
    if kind.stored_as is None:
        return tree
    if isinstance(kind, CustomKind):
        return _in_version(kind, tree)
    if convert := _CONVERT.get((kind.api_version, kind.plural)):
        return convert[0](tree)
    return _renamed(kind, tree, {stored: shown for shown, stored in _names(kind)})


def keep(kind: Kind, tree: JSON) -> JSON:
    """An object of `kind` in the shape that is stored."""
    if kind.stored_as is None:
        return tree
    if isinstance(kind, CustomKind):
        return tree | {"apiVersion": f"{kind.group}/{kind.storage}"}
    if convert := _CONVERT.get((kind.api_version, kind.plural)):
        return convert[1](tree)
    return _renamed(stored_kind(kind), tree, dict(_names(kind)))


def _in_version(kind: CustomKind, tree: JSON) -> JSON:
    """A stored object in this version: without what its schema doesn't keep, with the defaults of today."""
    tree = {**tree, "apiVersion": kind.api_version}
    structural.prune(kind.schema, tree, root=True)
    structural.default(kind.schema, tree)
    return tree


def field_path(kind: Kind, path: str) -> str:
    """The path, in the stored object, of a field that `kind` can be selected by."""
    first, dot, rest = path.partition(".")
    return dict(_names(kind)).get(first, first) + dot + rest


def _names(kind: Kind) -> tuple[tuple[str, str], ...]:
    return _NAMES.get((kind.group, kind.plural), ())


def _renamed(to: Kind, tree: JSON, names: dict[str, str]) -> JSON:
    found = {names.get(name, name): value for name, value in tree.items()}
    return found | {"apiVersion": to.api_version, "kind": to.kind}
