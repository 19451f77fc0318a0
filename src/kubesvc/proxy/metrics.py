"""The proxy's metrics, under upstream's names: dashboards and alerts made for kube-proxy go on working. What upstream
doesn't have begins with kubesvc_.

Follows pkg/proxy/metrics of Kubernetes; what only its iptables and ipvs modes have is left out.
"""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.labels import LAST_CHANGE_TRIGGER_TIME
from kubesvc.api.meta import parse_time

_DOUBLING = tuple(0.001 * 2**n for n in range(15))
_PROGRAMMING = tuple(map(float, (0.25, 0.5, *range(1, 60), *range(60, 120, 5), *range(120, 330, 30))))


class Metrics:
    """One registry a proxy, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._last_queued = 0.0
        self._endpoints_queued = self._services_queued = 0
        self.sync_seconds = self._histogram("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds")
        self.full_sync_seconds = self._histogram(
            "sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs"
        )
        self.partial_sync_seconds = self._histogram(
            "sync_partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for partial resyncs"
        )
        self.programming_seconds = self._histogram(
            "network_programming_duration_seconds", "In Cluster Network Programming Latency in seconds", _PROGRAMMING
        )
        self.last_sync = self._gauge(
            "sync_proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced"
        )
        self.last_queued = self._gauge(
            "sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued"
        )
        self.endpoint_changes_pending = self._gauge(
            "sync_proxy_rules_endpoint_changes_pending", "Pending proxy rules Endpoint changes"
        )
        self.endpoint_changes = self._counter(
            "sync_proxy_rules_endpoint_changes", "Cumulative proxy rules Endpoint changes"
        )
        self.service_changes_pending = self._gauge(
            "sync_proxy_rules_service_changes_pending", "Pending proxy rules Service changes"
        )
        self.service_changes = self._counter(
            "sync_proxy_rules_service_changes", "Cumulative proxy rules Service changes"
        )
        self.no_local_endpoints = self._gauge(
            "sync_proxy_rules_no_local_endpoints_total",
            "Number of services with a Local traffic policy and no endpoints",
            "traffic_policy",
        )
        self.sync_failures = self._counter(
            "sync_proxy_rules_nftables_sync_failures", "Cumulative proxy nftables sync failures"
        )
        self.cleanup_failures = self._counter(
            "sync_proxy_rules_nftables_cleanup_failures", "Cumulative proxy nftables cleanup failures"
        )
        self.healthz = self._counter("proxy_healthz", "Cumulative proxy healthz HTTP status", "code")
        self.livez = self._counter("proxy_livez", "Cumulative proxy livez HTTP status", "code")
        self.conntrack_seconds = self._histogram(
            "conntrack_reconciler_sync_duration_seconds", "ReconcileConntrackFlowsLatency latency in seconds"
        )
        self.conntrack_deleted = self._counter(
            "conntrack_reconciler_deleted_entries", "Cumulative conntrack flows deleted by conntrack reconciler"
        )

        self.affinity_clients = Gauge(
            "kubesvc_affinity_clients",
            "Clients remembered by Services with sessionAffinity ClientIP, one for each Service they use",
            ("family",),
            registry=self.registry,
        )
        self.affinity_capacity = Gauge(
            "kubesvc_affinity_capacity",
            "How many clients can be remembered; beyond, new clients are placed without being remembered",
            ("family",),
            registry=self.registry,
        )

    def render(self) -> bytes:
        """Prometheus' text format."""
        self._tell_queued()
        return generate_latest(self.registry)

    def queued(self, now: float, *, endpoints: bool) -> None:
        """A change of a slice, or of a Service, waits to be programmed. Told when somebody looks: a start queues tens
        of thousands."""
        self._last_queued = now
        if endpoints:
            self._endpoints_queued += 1
        else:
            self._services_queued += 1

    def _tell_queued(self) -> None:
        if self._endpoints_queued or self._services_queued:
            self.last_queued.set(self._last_queued)
        for count, pending, total in (
            (self._endpoints_queued, self.endpoint_changes_pending, self.endpoint_changes),
            (self._services_queued, self.service_changes_pending, self.service_changes),
        ):
            pending.inc(count)
            total.inc(count)
        self._endpoints_queued = self._services_queued = 0

    def synced(self, now: float, seconds: float, *, whole: bool) -> None:
        self._tell_queued()
        self.sync_seconds.observe(seconds)
        (self.full_sync_seconds if whole else self.partial_sync_seconds).observe(seconds)
        self.last_sync.set(now)
        self.endpoint_changes_pending.set(0)
        self.service_changes_pending.set(0)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _DOUBLING) -> Histogram:
        return Histogram(f"kubeproxy_{name}", text, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"kubeproxy_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        """Its name ends in _total when it is shown."""
        return Counter(f"kubeproxy_{name}", text, labels, registry=self.registry)


def triggered_at(found: EndpointSlice) -> datetime | None:
    """When what made the slice change happened, as its controller wrote down."""
    text = found.metadata.annotations.get(LAST_CHANGE_TRIGGER_TIME, "")
    try:
        moment = parse_time(text) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
