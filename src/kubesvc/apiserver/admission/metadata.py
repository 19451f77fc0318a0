"""ObjectMeta: what holds for the name, labels, annotations and the server's own fields of every kind.

Source: apimachinery pkg/api/validation/objectmeta.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.causes import IMMUTABLE, forbidden, invalid, required, too_long

NameRule = Callable[[str], list[str]]

ANNOTATIONS_LIMIT = 256 * 1024
"""Bytes of all keys and values together."""

STATUS_OWNED = ("generation", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
"""What a client may leave out of an update, or send stale: the stored value stays."""


def path_segment(text: str) -> list[str]:
    """Names that only have to fit into a URL path."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in text]


def prepare_create(tree: JSON) -> None:
    """Nothing the server owns comes from the client; a generation starts at 1."""
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        tree["metadata"].pop(name, None)


def prepare_update(new: JSON, old: JSON) -> None:
    """The server's own fields stay as stored, whatever the client sent."""
    meta, before = new["metadata"], old["metadata"]
    for name in STATUS_OWNED:
        if name in before:
            meta[name] = before[name]
        else:
            meta.pop(name, None)
    if before.get("generateName"):
        meta.setdefault("generateName", before["generateName"])


def validate(tree: JSON, rule: NameRule, *, namespaced: bool) -> list[Cause]:
    meta = tree.get("metadata") or {}
    causes: list[Cause] = []
    if generate := meta.get("generateName"):
        # A name will be made from it; one that ends in a hyphen is the usual prefix.
        stem = generate[:-1] + "a" if generate.endswith("-") else generate
        causes += [invalid("metadata.generateName", generate, why) for why in rule(stem)]
    if name := meta.get("name"):
        causes += [invalid("metadata.name", name, why) for why in rule(name)]
    else:
        causes.append(required("metadata.name", "name or generateName is required"))
    if namespaced:
        if namespace := meta.get("namespace"):
            causes += [invalid("metadata.namespace", namespace, why) for why in names.label(namespace)]
        else:
            causes.append(required("metadata.namespace"))
    elif meta.get("namespace"):
        causes.append(forbidden("metadata.namespace", "not allowed on this type"))
    causes += validate_labels(meta.get("labels"), "metadata.labels")
    causes += validate_annotations(meta.get("annotations"), "metadata.annotations")
    causes += _owners(meta.get("ownerReferences"))
    for index, finalizer in enumerate(meta.get("finalizers") or ()):
        causes += [invalid(f"metadata.finalizers[{index}]", finalizer, why) for why in names.qualified_name(finalizer)]
    return causes


def validate_update(new: JSON, old: JSON) -> list[Cause]:
    """What may not change: an object's name, namespace, uid; a deletion can't be taken back."""
    meta, before = new.get("metadata") or {}, old.get("metadata") or {}
    causes = [
        invalid(f"metadata.{name}", meta.get(name, ""), IMMUTABLE)
        for name in ("name", "namespace", "uid")
        if meta.get(name) and before.get(name) and meta[name] != before[name]
    ]
    if before.get("deletionTimestamp"):
        added = [f for f in meta.get("finalizers") or () if f not in (before.get("finalizers") or ())]
        if added:
            why = "no new finalizers can be added if the object is being deleted, found new finalizers "
            causes.append(forbidden("metadata.finalizers", why + _go_list(added)))
    return causes


def _go_list(texts: list[str]) -> str:
    return "[]string{" + ", ".join(f'"{t}"' for t in texts) + "}"


def validate_labels(found: Any, path: str) -> list[Cause]:
    """A map of labels, as metadata.labels or a plain selector is."""
    causes: list[Cause] = []
    for key, value in (found or {}).items():
        causes += [invalid(path, key, why) for why in names.qualified_name(key)]
        causes += [invalid(path, value, why) for why in names.label_value(value or "")]
    return causes


def validate_annotations(found: Any, path: str) -> list[Cause]:
    causes: list[Cause] = []
    size = 0
    for key, value in (found or {}).items():
        causes += [invalid(path, key, why) for why in names.qualified_name(key.lower())]
        size += len(key.encode()) + len((value or "").encode())
    if size > ANNOTATIONS_LIMIT:
        causes.append(too_long(path, ANNOTATIONS_LIMIT))
    return causes


def _owners(found: Any) -> list[Cause]:
    causes: list[Cause] = []
    controller: JSON | None = None
    for index, owner in enumerate(found or ()):
        path = f"metadata.ownerReferences[{index}]"
        causes += [
            invalid(f"{path}.{name}", "", f"{'version' if name == 'apiVersion' else name} must not be empty")
            for name in ("apiVersion", "kind", "name", "uid")
            if not owner.get(name)
        ]
        if owner.get("controller"):
            if controller is not None:
                why = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{controller.get('kind')}/{controller.get('name')} and {owner.get('kind')}/{owner.get('name')}"
                )
                causes.append(invalid("metadata.ownerReferences", found, why))
            controller = owner
    return causes


_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def validate_selector(found: Any, path: str) -> list[Cause]:
    """A LabelSelector: matchLabels and matchExpressions."""
    found = found or {}
    causes = validate_labels(found.get("matchLabels"), f"{path}.matchLabels")
    for index, term in enumerate(found.get("matchExpressions") or ()):
        here = f"{path}.matchExpressions[{index}]"
        operator, values = term.get("operator") or "", term.get("values") or []
        if operator in ("In", "NotIn") and not values:
            causes.append(required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(forbidden(f"{here}.values", why))
        elif operator not in _OPERATORS:
            causes.append(invalid(f"{here}.operator", operator, "not a valid selector operator"))
        causes += [
            invalid(f"{here}.key", term.get("key") or "", w) for w in names.qualified_name(term.get("key") or "")
        ]
        for at, value in enumerate(values):
            causes += [invalid(f"{here}.values[{at}]", value, why) for why in names.label_value(value)]
    return causes
