"""Annotations under our own prefix that do nothing where they are: misspelled, or on an object of another kind. Each is
answered with a warning. Other prefixes are other people's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubesvc.api.labels import (
    ADDRESS_POOL,
    ALLOW_SHARED_IP,
    BALANCE,
    BALANCE_KEY,
    LOAD_BALANCER_IPS,
    OURS,
    PUBLIC_HOSTNAME,
    WEIGHT,
)
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind

# a kind -> the annotations that users give its objects
_KNOWN: dict[str, tuple[str, ...]] = {
    "Service": (ADDRESS_POOL, ALLOW_SHARED_IP, BALANCE, BALANCE_KEY, PUBLIC_HOSTNAME, LOAD_BALANCER_IPS),
    "Pod": (WEIGHT,),
}
_TEMPLATES: dict[str, tuple[str, ...]] = {  # a kind -> where in it the template of its pods is
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(
        ("DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"), ("spec", "template")
    ),
}


def unknown(kind: Kind, tree: JSON) -> Iterator[str]:
    """A line for each annotation of ours that does nothing, of the object and of the pods it makes."""
    if kind.kind in _KNOWN or kind.kind in _TEMPLATES:
        yield from _lines(kind.kind, _annotations(tree), "metadata")
    if (path := _TEMPLATES.get(kind.kind)) is not None:
        template = tree
        for name in path:
            template = template.get(name) or {}
        yield from _lines("Pod", _annotations(template), ".".join((*path, "metadata")))


def _annotations(tree: JSON) -> Mapping[str, Any]:
    return (tree.get("metadata") or {}).get("annotations") or {}


def _lines(kind: str, given: Iterable[str], path: str) -> Iterator[str]:
    known = _KNOWN.get(kind, ())
    for name in given:
        if name.startswith(OURS) and name not in known:
            whose = next((other for other, names in _KNOWN.items() if name in names), None)
            if whose is not None:
                why = f"it is for a {whose}"
            else:
                why = "expected one of " + ", ".join(known or (n for names in _KNOWN.values() for n in names))
            yield f"{path}.annotations[{name}] does nothing on a {kind}: {why}"
