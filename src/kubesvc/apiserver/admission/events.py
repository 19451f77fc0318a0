"""The rules of Event, in both its shapes, and of Lease.

A core Event is what somebody reports, and is hardly looked at; one sent as events.k8s.io/v1 must say who did what.
Source: pkg/apis/core/validation/events.go, pkg/apis/coordination/validation.
"""

from __future__ import annotations

from kubesvc.api import names, registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import metadata
from kubesvc.apiserver.admission.causes import IMMUTABLE, invalid, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules

_NOTE_LIMIT = 1024
_FIXED = ("regarding", "related", "reason", "reportingController", "reportingInstance", "action", "note", "type",
          "eventTime")  # fmt: skip


def validate_new_event(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if not new.get("eventTime"):
        return []  # reported the old way
    causes: list[Cause] = []
    controller = new.get("reportingController") or ""
    if not controller:
        causes.append(required("reportingController"))
    else:
        causes += [invalid("reportingController", controller, why) for why in names.qualified_name(controller)]
    causes += [required(name) for name in ("reportingInstance", "action", "reason") if not new.get(name)]
    if len(new.get("note") or "") > _NOTE_LIMIT:
        causes.append(invalid("message", "", f"can have at most {_NOTE_LIMIT} characters"))
    if old is not None:
        causes += [invalid(name, new.get(name), IMMUTABLE) for name in _FIXED if new.get(name) != old.get(name)]
    return causes


def validate_lease(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes: list[Cause] = []
    if (seconds := spec.get("leaseDurationSeconds")) is not None and seconds <= 0:
        causes.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    if (transitions := spec.get("leaseTransitions")) is not None and transitions < 0:
        causes.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    return causes


ADMITS = (
    (registry.EVENT, Rules(name=metadata.path_segment)),
    (registry.EVENTS_EVENT, Rules(name=metadata.path_segment, validate=validate_new_event)),
    (registry.LEASE, Rules(validate=validate_lease)),
)
