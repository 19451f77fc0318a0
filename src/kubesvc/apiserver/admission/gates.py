"""Scheduling gates: a pod that has some waits for no node until the last is taken away. They are only ever taken away.

Source: pkg/registry/core/pod/strategy.go, applySchedulingGatedCondition; pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON, format_time
from kubesvc.apiserver.admission.causes import duplicate, forbidden, invalid

FIELD = "schedulingGates"


def condition(spec: JSON, now: datetime) -> list[JSON]:
    """What a new pod says of its scheduling; nothing without gates."""
    if not spec.get(FIELD):
        return []
    message = "Scheduling is blocked due to non-empty scheduling gates"
    return [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": message,
            "lastTransitionTime": format_time(now),
        }
    ]


def validate(spec: JSON, path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, gate in enumerate(spec.get(FIELD) or ()):
        here, name = f"{path}.{FIELD}[{index}]", gate.get("name") or ""
        yield from (invalid(here, name, why) for why in names.qualified_name(name))
        if name in seen:
            yield duplicate(f"{here}.name", name)
        seen.add(name)
    if seen and spec.get("nodeName"):
        yield forbidden(f"{path}.nodeName", "cannot be set until all schedulingGates have been cleared")


def added(spec: JSON, before: JSON) -> Iterator[Cause]:
    """The gates of an update that weren't there."""
    known = {gate.get("name") for gate in before.get(FIELD) or ()}
    for index, gate in enumerate(spec.get(FIELD) or ()):
        if gate.get("name") not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield forbidden(f"spec.{FIELD}[{index}].name", why)
