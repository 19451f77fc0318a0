"""Custom resources on their way into the store: defaulted, prepared, validated, as admission asks of every kind.

Follows apiextensions-apiserver pkg/registry/customresource/strategy.go and status_strategy.go.
"""

from __future__ import annotations

from typing import Any

from kubesvc.api import names
from kubesvc.api.errors import Cause, MethodNotAllowed
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import metadata
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.custom import cel, rules, structural, validation
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.custom.validation import ABSENT


def default(kind: CustomKind, tree: JSON) -> None:
    """Prune, then fill in, in place. Nulls stay for the schema to judge, but for the metadata's."""
    meta = tree.get("metadata")
    if isinstance(meta, dict):
        for name in [n for n, value in meta.items() if value is None]:
            del meta[name]
    structural.prune(kind.schema, tree, root=True)
    if kind.defaults:
        structural.default(kind.schema, tree)


def prepare(kind: CustomKind, new: JSON, old: JSON | None, context: Context) -> None:
    """Status apart from the rest, where the kind has a status of its own; generation counts what isn't status."""
    if old is None:
        if kind.terminating:
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        metadata.prepare_create(new)
        if kind.status:
            new.pop("status", None)
        new["metadata"]["generation"] = 1
        return
    if context.subresource == "status":
        _keep(new, old, {*new, *old} - {"status", "metadata"})
        version = new["metadata"].get("resourceVersion")
        new["metadata"] = dict(old["metadata"])
        if version:
            new["metadata"]["resourceVersion"] = version
    elif kind.status:
        _keep(new, old, {"status"})
    metadata.prepare_update(new, old)
    before = old["metadata"].get("generation") or 1
    new["metadata"]["generation"] = before + (_content(kind, new) != _content(kind, old))


def _keep(new: JSON, old: JSON, fields: set[str]) -> None:
    for name in fields:
        if name in old:
            new[name] = old[name]
        else:
            new.pop(name, None)


def _content(kind: CustomKind, tree: JSON) -> JSON:
    apart = ("metadata", "status", "apiVersion") if kind.status else ("metadata", "apiVersion")
    return {name: value for name, value in tree.items() if name not in apart}


def validate(kind: CustomKind, new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    """Metadata, then the schema, then its rules, which are only asked about what is of its types."""
    rule = names.subdomain if old is None else metadata.path_segment
    causes = metadata.validate(new, rule, namespaced=kind.namespaced)
    if old is not None:
        causes += metadata.validate_update(new, old)
    before: Any = ABSENT if old is None else old
    found = validation.validate(kind.schema, new, before, cel.match)
    if not found and kind.rules:
        found = rules.validate(kind.schema, new, before, context.spent)
    return causes + found
