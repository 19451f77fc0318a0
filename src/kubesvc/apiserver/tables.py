"""Tables: what `kubectl get` prints, as meta.k8s.io/v1 Table objects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind


def table(
    kind: Kind, objects: Sequence[JSON], now: datetime, *, resource_version: str, include: str = "Metadata"
) -> JSON:
    """A Table of `objects`; `include` (None, Metadata or Object) is what each row carries of its object."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": resource_version},
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}],
        "rows": [{"cells": [o["metadata"]["name"]], "object": o} for o in objects],
    }
