"""Events: what a room tells the person who types `kubectl describe`.

Recording is best effort: an event that can't be written (the namespace is going away, the server is) is logged and
forgotten, because no decision ever depends on one. Callers record transitions, not every look, so nothing is counted or
aggregated here. Follows core/v1 Event and client-go tools/record for the fields' spelling.
"""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime

from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON, Object, format_time
from kubesvc.api.registry import EVENT, Kind
from kubesvc.client.session import Session, Unreachable

log = logging.getLogger(__name__)

NORMAL = "Normal"
WARNING = "Warning"


class EventRecorder:
    """Writes events about objects as `component`."""

    def __init__(self, session: Session, component: str) -> None:
        self._session = session
        self._component = component

    async def record(self, kind: Kind, about: Object, event_type: str, reason: str, message: str) -> None:
        """One event of NORMAL or WARNING about an object; `reason` is CamelCase, `message` a sentence. Never raises
        for what the server answers."""
        now = format_time(datetime.now(UTC))
        meta = about.metadata
        involved: JSON = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        }
        tree: JSON = {
            "metadata": {"name": f"{meta.name}.{secrets.token_hex(8)}", "namespace": meta.namespace or "default"},
            "involvedObject": {k: v for k, v in involved.items() if v},
            "type": event_type,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._session.create(EVENT, tree)
        except (ApiError, Unreachable) as error:
            log.info("event %s about %s %s not recorded: %s", reason, kind.resource, about.key, error)
