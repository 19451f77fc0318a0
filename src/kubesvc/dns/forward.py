"""Asking other resolvers for what isn't ours: whom for which zone, and what is remembered of it.

    ask ──► cache: fresh? ──► the same question under way? share it ──► the pool of the longest zone above the name
              ▲   └─ stale: ours too, if no reply comes in STALE_WAIT      │
              └──────────── kept, and a failure for FAILURE_SECONDS ◄──────┘

Nothing here knows the zone that is answered from the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import dns.message
import dns.name

from kubesvc.dns import upstreams
from kubesvc.dns.cache import SIZE, Cache, Kept, Key, usable
from kubesvc.dns.config import SocketFactory
from kubesvc.dns.exchange import Upstream
from kubesvc.dns.pool import PROBE_SECONDS, ForwardError, NoReply, NoUpstream, Pool

__all__ = ["ForwardError", "Forwarder", "NoReply", "NoUpstream", "Reply"]

log = logging.getLogger(__name__)

LOOP_SECONDS = 60.0  # between two probes of every upstream for a loop
LOOK_SECONDS = 2.0  # between two looks at whom the machine asks
TRY_SECONDS = 1.0  # for one reply
STALE_WAIT = 1.5  # seconds for which a stale answer is held back in the hope of a fresh one (RFC 8767, 5)
STALE_TTL = 30
FAILURE_SECONDS = 2.0  # for which nobody is bothered again with what nobody answered (RFC 9520)


class Reply(NamedTuple):
    """An upstream's message, and how many seconds ago it came; `stale`: it has outlived its TTL."""

    message: dns.message.Message
    age: int
    stale: bool = False

    def ttl(self, own: int) -> int:
        """What to say instead of a record's `own` TTL."""
        return STALE_TTL if self.stale else max(0, own - self.age)


class Forwarder:
    """`upstreams_` are for everything, those of `zones` (zone -> upstreams) for the names in them.

    Raises ValueError for an upstream that isn't one.
    """

    def __init__(
        self,
        upstreams_: Sequence[str],
        socket_factory: SocketFactory,
        *,
        clock: Callable[[], float],
        zones: Mapping[str, Sequence[str]] | None = None,
        random_case: bool = False,
        tls: ssl.SSLContext | None = None,
        try_seconds: float = TRY_SECONDS,
        stale_wait: float = STALE_WAIT,
        probe_seconds: tuple[float, float] = PROBE_SECONDS,
        cache_size: int = SIZE,
    ) -> None:
        def asked(addresses: Sequence[str]) -> list[Upstream]:
            return [
                Upstream(upstreams.parse(one), socket_factory, random_case=random_case, tls=tls) for one in addresses
            ]

        def pool(addresses: Sequence[str]) -> Pool:
            return Pool(
                asked(addresses),
                clock=clock,
                on_loop=self._loop_found,
                try_seconds=try_seconds,
                probe_seconds=probe_seconds,
            )

        self._asked = asked
        self._addresses = tuple(upstreams_)
        named = {dns.name.from_text(zone): pool(addresses) for zone, addresses in (zones or {}).items()}
        self._pools = {dns.name.root: pool(upstreams_)} | named
        self.on_loop: Callable[[str], None] = lambda message: None  # is told of a forwarding loop, besides the log
        self._clock = clock  # seconds, never backwards
        self._stale_wait = stale_wait
        self._failures: dict[Key, tuple[float, ForwardError]] = {}  # -> (until, what)
        self._under_way: dict[Key, asyncio.Task[dns.message.Message]] = {}
        self.cache = Cache(cache_size)
        # for the metrics
        self.hits = self.misses = self.prefetched = self.served_stale = 0

    @property
    def upstreams(self) -> list[Upstream]:
        return [one for pool in self._pools.values() for one in pool.upstreams]

    @property
    def asked(self) -> int:
        """Questions sent to upstreams."""
        return sum(one.asked for one in self.upstreams)

    async def watch(
        self,
        find: Callable[[], Sequence[str]] | None = None,
        *,
        loop_seconds: float = LOOP_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Find loops, at once and again and again, until cancelled; to be begun once we listen.

        `find` says whom this machine asks now; when that changes, those are asked and probed instead.
        """
        due = 0.0
        while True:
            if find is not None and (found := tuple(find())) and found != self._addresses:
                try:
                    self.set_upstreams(found)
                    due = 0.0
                except ValueError as error:
                    log.warning("upstream resolvers stay as they are: %s", error)
            now = self._clock()
            if now >= due:
                due = now + loop_seconds
                self.probe_loops()
            await asyncio.sleep(look_seconds)

    def set_upstreams(self, addresses: Sequence[str]) -> None:
        """Ask these from now on for what has no zone of its own. Raises ValueError."""
        self._pools[dns.name.root].replace(self._asked(addresses))
        log.warning("upstream resolvers: %s in place of %s", ", ".join(addresses), ", ".join(self._addresses) or "none")
        self._addresses = tuple(addresses)
        self._failures.clear()

    def probe_loops(self) -> None:
        """Send every upstream a question that must not come back to us."""
        for pool in self._pools.values():
            pool.probe_loops()

    def _loop_found(self, message: str) -> None:
        log.error("%s", message)
        self.on_loop(message)

    def is_loop(self, name: dns.name.Name) -> bool:
        """Is a question that reached us one that we sent out ourselves?"""
        return any(pool.is_loop(name) for pool in self._pools.values())

    async def ask(self, name: dns.name.Name, kind: int, *, dnssec_ok: bool = False) -> Reply:
        """The reply to a question of class IN. Raises ForwardError."""
        key = (name, kind, dnssec_ok)
        now = self._clock()
        kept = self.cache.get(key, now)
        if kept is not None and kept.fresh(now):
            self.hits += 1
            if kept.due(now) and key not in self._under_way:
                self.prefetched += 1
                self._begin(key)
            return Reply(kept.message, int(now - kept.came))
        self.misses += 1
        if kept is not None:
            return await self._refreshed(key, kept)
        if failure := self._failures.get(key):
            if now < failure[0]:
                raise failure[1]
            del self._failures[key]
        # Shielded: who stops waiting must not take the reply from the others.
        return Reply(await asyncio.shield(self._begin(key)), 0)

    async def _refreshed(self, key: Key, kept: Kept) -> Reply:
        """A fresh reply in place of a stale one, or the stale one when it doesn't come in time."""
        failure = self._failures.get(key)
        if failure is None or self._clock() >= failure[0]:
            try:
                async with asyncio.timeout(self._stale_wait):
                    message = await asyncio.shield(self._begin(key))
                if usable(message):
                    return Reply(message, 0)
            except (ForwardError, TimeoutError):
                pass
        self.served_stale += 1
        return Reply(kept.message, 0, stale=True)

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in self._pools.values():
            await pool.close()

    def _begin(self, key: Key) -> asyncio.Task[dns.message.Message]:
        """The task that asks, begun if it isn't under way."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._resolve(key))
            task.add_done_callback(lambda done: self._done(key, done))
        return task

    def _done(self, key: Key, task: asyncio.Task[dns.message.Message]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen: a prefetch has nobody else who looks

    async def _resolve(self, key: Key) -> dns.message.Message:
        name, kind, dnssec_ok = key
        try:
            message = await self._pool(name).ask(name, kind, dnssec_ok=dnssec_ok)
        except ForwardError as error:
            if len(self._failures) >= SIZE:
                self._failures.clear()
            self._failures[key] = (self._clock() + FAILURE_SECONDS, error)
            raise
        self._failures.pop(key, None)
        now = self._clock()
        if (
            usable(message) or self.cache.get(key, now) is None
        ):  # a refusal must not push out what may yet be served stale
            self.cache.put(key, message, now)
        return message

    def _pool(self, name: dns.name.Name) -> Pool:
        while name not in self._pools:
            name = name.parent()
        return self._pools[name]
