"""What the server counts about itself, and /metrics: Prometheus' text, under upstream's names where upstream has one.

Counting is an addition in a dict: it happens at every request.
Source: apiserver pkg/endpoints/metrics, component-base/metrics.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path

from kubesvc.apiserver.routing import Target, is_true
from kubesvc.client.transport import Request, Response

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
_SIZES = (1000.0, 10000.0, 100000.0, 1000000.0, 10000000.0, 100000000.0, 1000000000.0)
_VERBS = {"GET": "GET", "POST": "POST", "PUT": "PUT", "PATCH": "PATCH", "DELETE": "DELETE"}
_CONNECTS = ("exec", "attach", "portforward", "proxy")
_STARTED = time.time()

# group, version, resource, subresource, scope, verb
Labels = tuple[str, str, str, str, str, str]
_NAMES = ("group", "version", "resource", "subresource", "scope", "verb")


class _Histogram:
    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str) -> Iterable[str]:
        total = 0
        comma = "," if labels else ""
        for bound, count in zip((*self._bounds, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels}{comma}le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self.sum:.9g}"
        yield f"{name}_count{{{labels}}} {total}"


class Metrics:
    """`started` and `ended` around each request, `answered` where there is an answer; `text` is what a scraper gets."""

    def __init__(self) -> None:
        self._requests: dict[tuple[Labels, str, int], int] = {}  # (labels, dry run, code) -> how many
        self._seconds: dict[Labels, _Histogram] = {}
        self._sizes: dict[Labels, _Histogram] = {}
        self._deprecated: set[Labels] = set()
        self._inflight = {"mutating": 0, "readOnly": 0}
        self._watches: dict[Labels, int] = {}  # labels -> open now

    def started(self, request: Request) -> str:
        """Returns what `ended` wants to be told again."""
        kind = "readOnly" if request.method in ("GET", "HEAD") else "mutating"
        self._inflight[kind] += 1
        return kind

    def ended(self, kind: str) -> None:
        """A request is no longer being answered, whether it was or its client has gone."""
        self._inflight[kind] -= 1

    def answered(self, request: Request, target: Target | None, response: Response, seconds: float) -> None:
        labels = _labels(request, target)
        counted = (labels, request.query.get("dryRun", ""), response.status)
        self._requests[counted] = self._requests.get(counted, 0) + 1
        if target is not None and target.kind.deprecated:
            self._deprecated.add(labels)
        if response.stream is not None or response.upgrade is not None:
            return
        (self._seconds.get(labels) or self._seconds.setdefault(labels, _Histogram(_BUCKETS))).observe(seconds)
        if labels[5] in ("GET", "LIST"):
            found = self._sizes.get(labels) or self._sizes.setdefault(labels, _Histogram(_SIZES))
            found.observe(len(response.body))

    def watching(self, request: Request, target: Target | None, change: int) -> None:
        """A watch has begun (1) or ended (-1)."""
        labels = _labels(request, target)
        self._watches[labels] = self._watches.get(labels, 0) + change

    def text(self, version: str, objects: Mapping[str, int]) -> str:
        """`objects` is resource -> how many are stored."""
        lines: list[str] = []

        def family(name: str, kind: str, help: str, values: Iterable[str]) -> None:
            lines.extend((f"# HELP {name} {help}", f"# TYPE {name} {kind}", *values))

        family("apiserver_request_total", "counter", "Requests answered, by verb, what they were for, and code.", (
            f'apiserver_request_total{{code="{code}",component="apiserver",dry_run="{dry}",{_text(labels)}}} {count}'
            for (labels, dry, code), count in self._requests.items()
        ))  # fmt: skip
        name = "apiserver_request_duration_seconds"
        family(name, "histogram", "Time to answer, watches left out.", (
            line for labels, found in self._seconds.items()
            for line in found.lines(name, f'component="apiserver",{_text(labels)}')
        ))  # fmt: skip
        name = "apiserver_response_sizes"
        family(name, "histogram", "Bytes of an answer, before it is packed.", (
            line for labels, found in self._sizes.items()
            for line in found.lines(name, f'component="apiserver",{_text(labels)}')
        ))  # fmt: skip
        family("apiserver_current_inflight_requests", "gauge", "Requests being answered, by kind.", (
            f'apiserver_current_inflight_requests{{request_kind="{kind}"}} {count}'
            for kind, count in self._inflight.items()
        ))  # fmt: skip
        family("apiserver_longrunning_requests", "gauge", "Watches that are open.", (
            f'apiserver_longrunning_requests{{component="apiserver",{_text(labels)}}} {count}'
            for labels, count in self._watches.items()
        ))  # fmt: skip
        family("apiserver_requested_deprecated_apis", "gauge", "Deprecated kinds that were asked for.", sorted({
            f'apiserver_requested_deprecated_apis{{group="{group}",removed_release="",resource="{plural}",'
            f'subresource="{sub}",version="{version}"}} 1'
            for group, version, plural, sub, *_ in self._deprecated
        }))  # fmt: skip
        for name in ("apiserver_storage_objects", "apiserver_resource_objects"):  # its older and its newer name
            family(name, "gauge", "Objects stored, by resource.", _objects(name, objects))
        family("kubernetes_build_info", "gauge", "Which version this is.", [
            f'kubernetes_build_info{{git_version="{version}",go_version="none",major="1",minor="36",'
            f'platform="linux/{platform.machine()}"}} 1'
        ])  # fmt: skip
        for name, kind, help, value in _process():
            family(name, kind, help, [f"{name} {value}"])
        return "\n".join(lines) + "\n"


def _objects(name: str, objects: Mapping[str, int]) -> Iterable[str]:
    if name == "apiserver_storage_objects":
        return [f'{name}{{resource="{resource}"}} {count}' for resource, count in objects.items()]
    return [
        f'{name}{{group="{group}",resource="{plural}"}} {count}'
        for (plural, _, group), count in ((resource.partition("."), count) for resource, count in objects.items())
    ]


def _process() -> Iterable[tuple[str, str, str, str]]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE")
    yield "process_cpu_seconds_total", "counter", "CPU time used.", f"{used.ru_utime + used.ru_stime:.2f}"
    yield "process_resident_memory_bytes", "gauge", "Memory in use.", str(memory)
    yield "process_open_fds", "gauge", "Open file descriptors.", str(len(os.listdir("/proc/self/fd")))
    yield "process_start_time_seconds", "gauge", "When the process began to count.", f"{_STARTED:.2f}"


def _labels(request: Request, target: Target | None) -> Labels:
    if target is None:
        return "", "", "", request.path.strip("/").partition("/")[0], "", _VERBS.get(request.method, "other")
    kind = target.kind
    scope = "resource" if target.name else "namespace" if target.namespace else "cluster"
    return kind.group, kind.version, kind.plural, target.subresource, scope, _verb(request, target)


def _verb(request: Request, target: Target) -> str:
    if target.subresource in _CONNECTS:
        return "CONNECT"
    if request.method == "GET" and not target.name:
        return "WATCH" if is_true(request.query, "watch") else "LIST"
    if request.method == "DELETE" and not target.name:
        return "DELETECOLLECTION"
    return _VERBS.get(request.method, "other")


def _text(labels: Labels) -> str:
    return ",".join(f'{name}="{value}"' for name, value in zip(_NAMES, labels, strict=True))
