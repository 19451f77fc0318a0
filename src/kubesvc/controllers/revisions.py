"""ControllerRevisions: the pod templates a StatefulSet or DaemonSet had, as `kubectl rollout` reads them.

A revision's data is a strategic merge patch that puts its template back; which one is the newest says its number. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kubesvc.api.apps import ControllerRevision
from kubesvc.api.meta import JSON, Object
from kubesvc.api.registry import Kind
from kubesvc.controllers.ownership import reference_to
from kubesvc.controllers.templates import canonical, fingerprint

HASH = "controller.kubernetes.io/hash"  # a label
MAX_NAME = 223  # characters of the owner's name in a revision's, as upstream


def template_of(revision: ControllerRevision) -> JSON:
    template = (revision.data.get("spec") or {}).get("template") or {}
    return {k: v for k, v in template.items() if k != "$patch"}


def hash_of(revision: ControllerRevision) -> str:
    return revision.metadata.labels.get(HASH, "")


def in_order(revisions: Sequence[ControllerRevision]) -> list[ControllerRevision]:
    """The oldest first."""
    return sorted(revisions, key=lambda r: (r.revision, r.metadata.creation_timestamp or "", r.name))


def with_template(template: JSON, revisions: Sequence[ControllerRevision]) -> ControllerRevision | None:
    """The newest that has this template."""
    wanted = canonical(template)
    return next((r for r in reversed(in_order(revisions)) if canonical(template_of(r)) == wanted), None)


def next_number(revisions: Sequence[ControllerRevision]) -> int:
    return max((r.revision for r in revisions), default=0) + 1


def revision_tree(kind: Kind, owner: Object, template: JSON, number: int, collisions: int) -> JSON:
    """The ControllerRevision for a template that has none yet."""
    hash_ = fingerprint(template, collisions)
    labels = (template.get("metadata") or {}).get("labels") or {}
    return {
        "metadata": {
            "name": f"{owner.name[:MAX_NAME]}-{hash_}",
            "namespace": owner.namespace,
            "labels": labels | {HASH: hash_},
            "annotations": {k: v for k, v in owner.metadata.annotations.items() if k == "kubernetes.io/change-cause"},
            "ownerReferences": [reference_to(kind, owner)],
        },
        "data": {"spec": {"template": {**template, "$patch": "replace"}}},
        "revision": number,
    }


def surplus(revisions: Sequence[ControllerRevision], in_use: Collection[str], limit: int) -> list[ControllerRevision]:
    """What is beyond the history limit, the oldest first; those named in `in_use` stay and don't count."""
    idle = [r for r in in_order(revisions) if r.name not in in_use]
    return idle[: max(0, len(idle) - limit)]
