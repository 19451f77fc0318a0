"""Is this proxy healthy, is its node, and has a Service endpoints here? The answers, word for word upstream's. Pure.

    a change is queued ─► pending since then ─► programmed: nothing pending     pending for 60 s: not healthy
    livez    healthy
    healthz  healthy, and the node is there, stays, and isn't about to be taken away by the cluster autoscaler

Follows pkg/proxy/healthcheck of Kubernetes. Times are aware datetimes, given by the caller.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from kubesvc.api.nodes import Node

TIMEOUT = timedelta(seconds=60)
_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"


class Answer(NamedTuple):
    """What an HTTP server says."""

    status: int
    body: str
    headers: dict[str, str]


class Health(msgspec.Struct):
    """The state both questions look at. `families`: IPv4, IPv6, those the proxy programs; all in one batch."""

    families: tuple[str, ...]
    started: datetime
    updated: datetime | None = None
    pending: datetime | None = None
    """Since when a change has been waiting."""
    node_eligible: bool = True

    def queued(self, now: datetime) -> None:
        if self.pending is None:
            self.pending = now

    def programmed(self, now: datetime) -> None:
        self.pending, self.updated = None, now

    def see_node(self, node: Node | None) -> None:
        self.node_eligible = (
            node is not None
            and node.metadata.deletion_timestamp is None
            and all(taint.key != _TO_BE_DELETED for taint in node.spec.taints)
        )

    def healthy(self, now: datetime) -> bool:
        """Healthy while starting, too: as upstream, so that a slow start is no reason to be killed."""
        return self.updated is None or self.pending is None or now - self.pending < TIMEOUT

    def livez(self, now: datetime) -> Answer:
        healthy = self.healthy(now)
        return self._answer(now, healthy, {})

    def healthz(self, now: datetime) -> Answer:
        healthy = self.healthy(now) and self.node_eligible
        return self._answer(now, healthy, {"nodeEligible": self.node_eligible})

    def _answer(self, now: datetime, healthy: bool, more: dict[str, bool]) -> Answer:
        """A healthy proxy was "last updated" now: older releases meant the last look, not the last change."""
        updated = now if healthy else self.updated or self.started
        own = self.healthy(now)
        family = {"lastUpdated": _show(now if own else self.updated or self.started), "healthy": own}
        body = {
            "lastUpdated": _show(updated),
            "currentTime": _show(now),
            **more,
            "healthy": healthy,
            "status": dict.fromkeys(self.families, family),
        }
        headers = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
        return Answer(200 if healthy else 503, json.dumps(body), headers)


def service_health(namespace: str, name: str, endpoints: int, healthy: bool) -> Answer:
    """What a load balancer hears at a Service's health-check node port. `endpoints`: ready ones on this node."""
    body = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": healthy,
    }
    headers = {
        "Content-Type": "application/json",
        "X-Content-Type-Options": "nosniff",
        "X-Load-Balancing-Endpoint-Weight": str(endpoints),
    }
    return Answer(200 if endpoints and healthy else 503, json.dumps(body, indent="\t"), headers)


def _show(moment: datetime) -> str:
    return moment.isoformat()
