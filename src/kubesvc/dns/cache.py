"""Upstreams' replies, kept for their TTL, and beyond it for the day when nobody replies. Pure.

    put ──► fresh, until its smallest TTL ──► stale, STALE_SECONDS long (RFC 8767) ──► gone
                └── asked for often, and nearly over: due to be fetched again before it ends

Bounded: the reply that wasn't used for longest makes room. Negative replies are kept as their SOA says (RFC 2308).
"""

from __future__ import annotations

from collections import OrderedDict

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

Key = tuple[dns.name.Name, int, bool]  # (name, type, DNSSEC wanted); a Name compares without case

SIZE = 4096  # replies
MAX_TTL = 30  # seconds; a resolver behind us keeps them longer
FAILED_TTL = 1  # seconds a negative reply without an SOA is kept
STALE_SECONDS = 3600
PREFETCH_USES = 3  # of one reply, that make it worth fetching again before it ends
PREFETCH_SHARE = 0.2  # of its life left


class Kept:
    """A reply that came at `came` and is fresh until `ends`, in seconds of the cache's clock."""

    __slots__ = ("came", "ends", "message", "uses")

    def __init__(self, message: dns.message.Message, came: float, ends: float) -> None:
        self.message = message
        self.came = came
        self.ends = ends
        self.uses = 0

    def fresh(self, now: float) -> bool:
        return now < self.ends

    def due(self, now: float) -> bool:
        """Is it popular, and about to end?"""
        return self.uses >= PREFETCH_USES and self.ends - now < (self.ends - self.came) * PREFETCH_SHARE


class Cache:
    def __init__(self, size: int = SIZE, stale_seconds: float = STALE_SECONDS) -> None:
        self._size = size
        self._stale_seconds = stale_seconds
        self._kept: OrderedDict[Key, Kept] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, now: float) -> Kept | None:
        """The reply kept for `key`, fresh or stale."""
        found = self._kept.get(key)
        if found is None:
            return None
        if now >= found.ends + (self._stale_seconds if usable(found.message) else 0):
            del self._kept[key]
            return None
        found.uses += 1
        self._kept.move_to_end(key)
        return found

    def put(self, key: Key, message: dns.message.Message, now: float) -> None:
        self._kept[key] = Kept(message, now, now + time_to_live(message))
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)


def usable(message: dns.message.Message) -> bool:
    """Does it say something about the name, rather than about the upstream?"""
    return message.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


def time_to_live(message: dns.message.Message) -> int:
    """How many seconds a reply may be kept: its smallest TTL, for a negative one what its SOA says."""
    if message.answer:
        return min(MAX_TTL, *(rrset.ttl for rrset in message.answer))
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return min(MAX_TTL, rrset.ttl, int(rrset[0].minimum))
    return FAILED_TTL
