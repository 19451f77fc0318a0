"""Asking the machine's resolvers for what isn't ours: fresh port and id for each question, retries, a small cache.

    ask ──► cache ──► the same question under way? share it ──► UDP to each upstream in turn, twice ──► TCP when cut
              ▲                                                   │
              └───────────── kept for its smallest TTL ◄──────────┘

A reply counts only if it comes from the address asked, to the port asked from, with the id and the question sent.
Sockets come from a factory, since a box asks from the host's namespace. Nothing here knows the zone.

    ForwardError      no reply can be had; the log says why, at most once in 30 s
    ├── NoUpstream    there is nobody to ask
    └── NoReply       everybody asked was silent, or failed
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from kubesvc.dns import upstreams
from kubesvc.dns.config import SocketFactory

log = logging.getLogger(__name__)

TRY_SECONDS = 1.0  # for one reply; four tries must end before a stub resolver's own 5 s
ROUNDS = 2
CACHE_SIZE = 4096  # replies
MAX_TTL = 30  # seconds; a resolver behind us keeps them longer
FAILED_TTL = 1  # seconds a negative reply without an SOA is kept
LOG_EVERY = 30.0  # seconds
PAYLOAD = 1232


class ForwardError(Exception):
    pass


class NoUpstream(ForwardError):
    pass


class NoReply(ForwardError):
    pass


class Reply(NamedTuple):
    """An upstream's message, and how many seconds ago it came."""

    message: dns.message.Message
    age: int


_Key = tuple[dns.name.Name, int, bool]  # a Name compares without case


class Forwarder:
    """Asks `upstreams` in their order, the one that last answered first."""

    def __init__(
        self,
        upstreams_: Sequence[str],
        socket_factory: SocketFactory,
        *,
        clock: Callable[[], float],
        try_seconds: float = TRY_SECONDS,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self._upstreams = [upstreams.endpoint(one) for one in upstreams_]
        self._socket_factory = socket_factory
        self._clock = clock  # seconds, never backwards
        self._try_seconds = try_seconds
        self._cache_size = cache_size
        self._cache: OrderedDict[_Key, tuple[float, float, dns.message.Message]] = OrderedDict()  # -> (came, ends, …)
        self._under_way: dict[_Key, asyncio.Task[dns.message.Message]] = {}
        self._quiet_until = 0.0
        self.asked = 0  # questions sent to upstreams, for the metrics

    async def ask(self, name: dns.name.Name, kind: int, *, dnssec_ok: bool = False) -> Reply:
        """The reply to a question of class IN. Raises ForwardError."""
        key = (name, kind, dnssec_ok)
        now = self._clock()
        if kept := self._cache.get(key):
            came, ends, message = kept
            if now < ends:
                return Reply(message, int(now - came))
            del self._cache[key]
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._resolve(key))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        # Shielded: who stops waiting must not take the reply from the others.
        return Reply(await asyncio.shield(task), 0)

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resolve(self, key: _Key) -> dns.message.Message:
        message = await self._try_all(key)
        now = self._clock()
        self._cache[key] = (now, now + _time_to_live(message), message)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return message

    async def _try_all(self, key: _Key) -> dns.message.Message:
        name, kind, dnssec_ok = key
        if not self._upstreams:
            self._complain("%s: refused: there is no upstream resolver to forward it to", name)
            raise NoUpstream(f"{name}: no upstream resolver")
        failed: dns.message.Message | None = None
        for _ in range(ROUNDS):
            for upstream in tuple(self._upstreams):
                query = dns.message.make_query(name, _type(kind), use_edns=0, payload=PAYLOAD, want_dnssec=dnssec_ok)
                query.id = secrets.randbits(16)
                self.asked += 1
                try:
                    async with asyncio.timeout(self._try_seconds):
                        reply = await self._exchange(query, upstream)
                except (OSError, TimeoutError, EOFError, dns.exception.DNSException) as error:
                    self._complain("%s: no reply from %s port %d: %s", name, *upstream, error or "timed out")
                    continue
                if reply.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    self._prefer(upstream)
                    return reply
                failed = reply
        if failed is not None:
            return failed
        raise NoReply(f"{name}: no upstream resolver replied")

    async def _exchange(self, query: dns.message.Message, upstream: tuple[str, int]) -> dns.message.Message:
        """One question, one reply: over UDP, and over TCP when it was cut. Raises OSError, EOFError, DNSException."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in upstream[0] else socket.AF_INET
        with self._socket_factory(family, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(upstream)  # the kernel picks a random port, and drops what others send to it
            await loop.sock_sendall(udp, query.to_wire())
            while True:
                reply = _parse(await loop.sock_recv(udp, 65535))
                if reply is not None and query.is_response(reply):
                    break
        if not reply.flags & dns.flags.TC:
            return reply
        with self._socket_factory(family, socket.SOCK_STREAM) as tcp:
            tcp.setblocking(False)
            await loop.sock_connect(tcp, upstream)
            wire = query.to_wire()
            await loop.sock_sendall(tcp, len(wire).to_bytes(2, "big") + wire)
            size = int.from_bytes(await _receive(loop, tcp, 2), "big")
            whole = dns.message.from_wire(await _receive(loop, tcp, size))
        if not query.is_response(whole):
            raise ConnectionError(f"{upstream[0]} answered another question over TCP")
        return whole

    def _prefer(self, upstream: tuple[str, int]) -> None:
        if self._upstreams[0] != upstream:
            self._upstreams.remove(upstream)
            self._upstreams.insert(0, upstream)

    def _complain(self, text: str, *values: object) -> None:
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_EVERY
            log.warning(text, *values)


async def _receive(loop: asyncio.AbstractEventLoop, tcp: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = await loop.sock_recv(tcp, size - len(parts))
        if not part:
            raise EOFError(f"the connection ended after {len(parts)} of {size} bytes")
        parts += part
    return parts


def _type(kind: int) -> dns.rdatatype.RdataType:
    return dns.rdatatype.RdataType.make(kind)


def _parse(data: bytes) -> dns.message.Message | None:
    """A message, None when it isn't one: over UDP anybody may send anything, so the wait goes on."""
    try:
        return dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
    except dns.exception.DNSException:
        return None


def _time_to_live(message: dns.message.Message) -> int:
    """How many seconds a reply may be kept: its smallest TTL, for a negative one what its SOA says (RFC 2308)."""
    if message.answer:
        return min(MAX_TTL, *(rrset.ttl for rrset in message.answer))
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return min(MAX_TTL, rrset.ttl, int(rrset[0].minimum))
    return FAILED_TTL
