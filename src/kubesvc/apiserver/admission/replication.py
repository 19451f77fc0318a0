"""The rules of ReplicationController, whose selector is a plain map, and of ControllerRevision.

Source: pkg/apis/core/v1/defaults.go, ValidateReplicationControllerSpec; pkg/apis/apps/validation.
"""

from __future__ import annotations

from kubesvc.api import registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import metadata, workloads
from kubesvc.apiserver.admission.causes import IMMUTABLE, invalid, required
from kubesvc.apiserver.admission.containers import NEGATIVE
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules


def default_controller(tree: JSON) -> None:
    """The selector and the controller's own labels are those of its pods, unless given."""
    workloads.default_replica_set(tree)
    spec = tree["spec"]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        spec["selector"] = spec.get("selector") or dict(labels)
        tree["metadata"]["labels"] = tree["metadata"].get("labels") or dict(labels)


def validate_controller(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec = new.get("spec") or {}
    selector = spec.get("selector") or {}
    causes = list(metadata.validate_labels(selector, "spec.selector"))
    if not selector:
        causes.append(required("spec.selector"))
    causes += workloads.validate_template("ReplicationController", spec)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if selector and "template" in spec and not selector.items() <= labels.items():
        why = "`selector` does not match template `labels`"
        causes.append(invalid("spec.template.metadata.labels", labels, why))
    return causes


def validate_revision(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    if (new.get("revision") or 0) < 0:
        causes.append(invalid("revision", new["revision"], NEGATIVE))
    if new.get("data") is None:
        causes.append(required("data", "data is mandatory"))
    if old is not None and new.get("data") != old.get("data"):
        causes.append(invalid("data", new.get("data"), IMMUTABLE))
    return causes


ADMITS = (
    (
        registry.REPLICATION_CONTROLLER,
        Rules(default=default_controller, validate=validate_controller, warnings=workloads.warnings, counted=True),
    ),
    (registry.CONTROLLER_REVISION, Rules(validate=validate_revision)),
)
