"""The upstreams of one zone: the one that last answered is asked first, those that are down last.

    up ──FAILURES in a row──► down ──a probe is answered──► up          a probe asks for the root's name servers
     └──its probe of a loop comes back to us──► looping                 not asked until a probe is answered otherwise

Nobody waits for a resolver that is known to be down while another is up; when all are down, all are tried.

    ForwardError      no reply can be had; the log says why, at most once in 30 s
    ├── NoUpstream    there is nobody to ask
    └── NoReply       everybody asked was silent, or failed
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from kubesvc.dns.exchange import Upstream

log = logging.getLogger(__name__)

ROUNDS = 2
TRIES = 4  # of one question altogether: they must end before a stub resolver's own 5 s
FAILURES = 3  # in a row, until an upstream is down
PROBE_SECONDS = (0.5, 5.0)  # between two probes: at first, at most
LOG_EVERY = 30.0  # seconds
HINFO = dns.rdatatype.HINFO


class ForwardError(Exception):
    pass


class NoUpstream(ForwardError):
    pass


class NoReply(ForwardError):
    pass


class Pool:
    """`upstreams` are in order of preference, which changes as they answer."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        clock: Callable[[], float],
        on_loop: Callable[[str], None],
        try_seconds: float,
        probe_seconds: tuple[float, float] = PROBE_SECONDS,
    ) -> None:
        self.upstreams = list(upstreams)
        self._clock = clock
        self._on_loop = on_loop
        self._try_seconds = try_seconds
        self._probe_seconds = probe_seconds
        self._quiet_until = 0.0
        self._probes: set[asyncio.Task[None]] = set()
        self._loops: dict[dns.name.Name, Upstream] = {}  # name of a probe that should never come to us -> who was asked

    async def ask(self, name: dns.name.Name, kind: int, *, dnssec_ok: bool = False) -> dns.message.Message:
        """A reply, from whoever gives one first. Raises ForwardError."""
        asked = self._order() * ROUNDS
        if not asked:
            self._complain("%s: refused: there is no upstream resolver to forward it to", name)
            raise NoUpstream(f"{name}: no upstream resolver")
        failed: dns.message.Message | None = None
        for upstream in asked[:TRIES]:
            if upstream.looping:
                continue
            try:
                async with asyncio.timeout(self._try_seconds):
                    reply = await upstream.ask(name, kind, dnssec_ok=dnssec_ok)
            except (OSError, TimeoutError, EOFError, dns.exception.DNSException) as error:
                self._complain("%s: no reply from %s: %s", name, upstream, error or "timed out")
                self._failed(upstream)
                continue
            upstream.failures, upstream.down = 0, False
            if reply.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                self._prefer(upstream)
                return reply
            failed = reply
        if failed is not None:
            return failed
        raise NoReply(f"{name}: no upstream resolver replied")

    def replace(self, upstreams: Sequence[Upstream]) -> None:
        """Ask these from now on; one that was asked before keeps what is known of it."""
        known = {one.endpoint: one for one in self.upstreams}
        self.upstreams = [known.pop(one.endpoint, one) for one in upstreams]
        for gone in known.values():
            gone.down = False  # ends its probe
            self._begin(gone.close())

    def probe_loops(self) -> None:
        """Send each upstream a question that nobody else asks; should it come back, `is_loop` knows it."""
        for upstream in self.upstreams:
            for before in [name for name, one in self._loops.items() if one is upstream]:
                del self._loops[before]
            label = secrets.token_hex(16).encode()
            name = dns.name.Name([label, b"loop-probe", b"kubesvc", b""])
            self._loops[name] = upstream
            self._begin(self._probe_loop(upstream, name))

    def is_loop(self, name: dns.name.Name) -> bool:
        """Is a question that reached us one of our own probes? Then whom it was sent to is asked no more."""
        upstream = self._loops.pop(name, None)
        if upstream is None:
            return False
        if upstream.looping:
            return True
        upstream.looping = True
        self._on_loop(
            f"a forwarding loop: what {upstream} is asked comes back to this server; it is not asked any more. "
            "Name another resolver with --forward, or take this one out of the machine's resolv.conf"
        )
        return True

    async def close(self) -> None:
        for task in list(self._probes):
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        for upstream in self.upstreams:
            await upstream.close()

    def _order(self) -> list[Upstream]:
        usable = [one for one in self.upstreams if not one.looping]
        return [one for one in usable if not one.down] or usable

    def _prefer(self, upstream: Upstream) -> None:
        if self.upstreams[0] is not upstream:
            self.upstreams.remove(upstream)
            self.upstreams.insert(0, upstream)

    def _failed(self, upstream: Upstream) -> None:
        upstream.failed += 1
        upstream.failures += 1
        if upstream.failures >= FAILURES and not upstream.down:
            upstream.down = True
            log.warning("%s is down: not asked until it answers a probe", upstream)
            self._begin(self._probe(upstream))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _probe(self, upstream: Upstream) -> None:
        wait, longest = self._probe_seconds
        while upstream.down:
            await asyncio.sleep(wait)
            wait = min(wait * 2, longest)
            try:
                async with asyncio.timeout(self._try_seconds):
                    await upstream.ask(dns.name.root, dns.rdatatype.NS)
            except (OSError, TimeoutError, EOFError, dns.exception.DNSException):
                continue
            upstream.failures, upstream.down = 0, False
            log.info("%s is up again", upstream)

    async def _probe_loop(self, upstream: Upstream, name: dns.name.Name) -> None:
        try:
            async with asyncio.timeout(self._try_seconds):
                await upstream.ask(name, HINFO)
        except (OSError, TimeoutError, EOFError, dns.exception.DNSException):
            return
        if upstream.looping and name in self._loops:
            upstream.looping = False
            log.info("%s does not lead back to this server any more: it is asked again", upstream)

    def _complain(self, text: str, *values: object) -> None:
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_EVERY
            log.warning(text, *values)
