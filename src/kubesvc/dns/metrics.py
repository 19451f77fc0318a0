"""What a node's DNS counts, as Prometheus reads it: CoreDNS's names where it has one, so that its dashboards go on.

The fast path counts into one dictionary; names and labels are made when somebody asks. Time is taken, and sizes are
looked at, once a batch of datagrams: each answer of one counts with its mean time, from its receiving to its
sending, and with the sizes of the batch's last. What takes long by itself (TCP, upstreams) is measured by itself.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import dns.rcode
import dns.rdatatype

from kubesvc.dns import wire
from kubesvc.dns.forward import Forwarder

KNOWN = frozenset({"A", "AAAA", "CNAME", "DS", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT", "ANY", "AXFR"})
"""Types with a label of their own; the others are "other", so that nobody can make labels up."""


DURATIONS = tuple(0.00025 * 2**power for power in range(16))  # seconds; CoreDNS's buckets
SIZES = (0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16000, 32000, 48000, 64000)  # bytes; CoreDNS's


class Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def lines(self, name: str, labels: Mapping[str, str]) -> Iterator[str]:
        total = 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            total += count
            le = "+Inf" if bound == math.inf else f"{bound:g}"
            yield _sample(f"{name}_bucket", total, **labels, le=le)
        yield _sample(f"{name}_sum", self.sum, **labels)
        yield _sample(f"{name}_count", total, **labels)


class Counts:
    """`fast` maps type and second flag byte of the answer (3 bytes) -> answers of the UDP fast path."""

    def __init__(self) -> None:
        self.fast: defaultdict[bytes, int] = defaultdict(int)
        self.others: Counter[tuple[str, str, int, bool]] = Counter()  # (protocol, type, rcode, forwarded) -> answers
        self.durations = {forwarded: Histogram(DURATIONS) for forwarded in (False, True)}
        # (protocol, forwarded) -> of questions, of answers
        self.sizes = {(p, f): (Histogram(SIZES), Histogram(SIZES)) for p in ("udp", "tcp") for f in (False, True)}
        self.failed = 0

    def batch(self, count: int, seconds: float, request: int, response: int) -> None:
        """`count` answers over UDP that took `seconds` each, with the sizes of one of them."""
        self.durations[False].add(seconds, count)
        requests, responses = self.sizes["udp", False]
        requests.add(request, count)
        responses.add(response, count)

    def timed(self, seconds: float, *, forwarded: bool) -> None:
        self.durations[forwarded].add(seconds)

    def sized(self, protocol: str, request: int, response: int, *, forwarded: bool) -> None:
        requests, responses = self.sizes[protocol, forwarded]
        requests.add(request)
        responses.add(response)

    def answered(self, protocol: str, answer: bytes, *, forwarded: bool) -> None:
        """Count an answer of the slow path."""
        kind = "other"
        if answer[4:6] == b"\0\1":
            end = wire.HEADER
            while answer[end]:
                end += 1 + answer[end]
            kind = _kind(int.from_bytes(answer[end + 1 : end + 3], "big"))
        self.others[protocol, kind, answer[3] & 0xF, forwarded] += 1

    def answers(self) -> Counter[tuple[str, str, int, bool]]:
        """Every answer, by (protocol, type, rcode, forwarded)."""
        found = Counter(self.others)
        for key, count in self.fast.copy().items():
            found["udp", _kind(int.from_bytes(key[:2], "big")), key[2] & 0xF, False] += count
        return found


def _kind(number: int) -> str:
    text = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(number))
    return text if text in KNOWN else "other"


def _sample(name: str, value: float, **labels: str) -> str:
    inner = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{inner}}} {value}\n" if inner else f"{name} {value}\n"


def render(counts: Counts, forwarder: Forwarder, *, zone: str, port: int, family: str) -> str:
    """The whole page. `family` is CoreDNS's: "1" for IPv4, "2" for IPv6."""
    return "".join(_page(counts, forwarder, zone, f"dns://:{port}", family))


def _page(counts: Counts, forwarder: Forwarder, zone: str, server: str, family: str) -> Iterator[str]:
    requests: Counter[tuple[str, str, str]] = Counter()
    responses: Counter[tuple[str, str]] = Counter()
    for (protocol, kind, rcode, forwarded), count in counts.answers().items():
        where = "." if forwarded else zone + "."
        requests[where, protocol, kind] += count
        responses[where, dns.rcode.to_text(dns.rcode.Rcode(rcode))] += count
    yield "# TYPE coredns_dns_requests_total counter\n"
    for (where, protocol, kind), count in sorted(requests.items()):
        labels = {"server": server, "zone": where, "view": "", "proto": protocol, "family": family, "type": kind}
        yield _sample("coredns_dns_requests_total", count, **labels)
    yield "# TYPE coredns_dns_responses_total counter\n"
    for (where, rcode_text), count in sorted(responses.items()):
        labels = {"server": server, "zone": where, "view": "", "rcode": rcode_text, "plugin": ""}
        yield _sample("coredns_dns_responses_total", count, **labels)
    yield from _histograms(counts, zone, server)
    yield "# TYPE coredns_panics_total counter\n" + _sample("coredns_panics_total", counts.failed)
    own = {"server": server, "zones": ".", "view": ""}
    for name, value in (
        ("hits", forwarder.hits),
        ("misses", forwarder.misses),
        ("prefetch", forwarder.prefetched),
        ("served_stale", forwarder.served_stale),
    ):
        yield f"# TYPE coredns_cache_{name}_total counter\n" + _sample(f"coredns_cache_{name}_total", value, **own)
    yield "# TYPE coredns_cache_entries gauge\n" + _sample("coredns_cache_entries", len(forwarder.cache), **own)
    for name, read in (("requests", "asked"), ("failures", "failed")):
        yield f"# TYPE coredns_forward_{name}_total counter\n"
        for upstream in forwarder.upstreams:
            to = f"{upstream.endpoint.address}:{upstream.endpoint.port}"
            yield _sample(f"coredns_forward_{name}_total", getattr(upstream, read), to=to)
    yield "# TYPE kubesvc_dns_upstream_up gauge\n"
    for upstream in forwarder.upstreams:
        to = f"{upstream.endpoint.address}:{upstream.endpoint.port}"
        yield _sample("kubesvc_dns_upstream_up", int(not (upstream.down or upstream.looping)), to=to)


def _histograms(counts: Counts, zone: str, server: str) -> Iterator[str]:
    where = {False: zone + ".", True: "."}
    name = "coredns_dns_request_duration_seconds"
    yield f"# TYPE {name} histogram\n"
    for forwarded, durations in counts.durations.items():
        yield from durations.lines(name, {"server": server, "zone": where[forwarded], "view": ""})
    for number, name in enumerate(("coredns_dns_request_size_bytes", "coredns_dns_response_size_bytes")):
        yield f"# TYPE {name} histogram\n"
        for (protocol, forwarded), sizes in counts.sizes.items():
            labels = {"server": server, "zone": where[forwarded], "view": "", "proto": protocol}
            yield from sizes[number].lines(name, labels)
