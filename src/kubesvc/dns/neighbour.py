"""Looking after each other: a node's DNS that hangs or is gone is taken out of kube-dns by the one next to it.

    node1 ──asks──► node2 ──asks──► node3 ──asks──► node1        each asks the next, once a second

A server that is restarted in order withdraws its slice, and one that is killed is back in a moment while its socket
queues. What is left is a server that hangs, or can't start. Nobody on its node would notice; the next one marks its
endpoint unready, so that the data plane leads its pods to other nodes' servers. The owner puts the slice right as soon
as it is alive. A watcher of a server that is out of service looks after the one behind it too.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import ApiError
from kubesvc.api.registry import ENDPOINT_SLICE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session, Unreachable
from kubesvc.dns import wire
from kubesvc.dns.kube_dns import NAMESPACE, SERVICE, slice_name

log = logging.getLogger(__name__)

PROBE_SECONDS = 1.0  # between two questions, and until one counts as unanswered
MISSES = 2  # in a row, until a neighbour is taken out
MOST_MISSES = 64  # what MISSES grows to for one whose owner says that it is well


Probe = Callable[[str, int], Awaitable[bool]]
"""(address, port) -> does the server there answer from its caches?"""


class _Watched(msgspec.Struct):
    misses: int = 0
    allowed: int = MISSES


def neighbours(own: str, serving: Mapping[str, bool]) -> list[str]:
    """Whom `own` looks after: the next node in order, and while that is out of service the one behind it as well.

    `serving` maps a node -> is its endpoint ready?
    """
    names = sorted(serving)
    later = [name for name in names if name > own] + [name for name in names if name < own]
    found = []
    for name in later:
        found.append(name)
        if serving[name]:
            break
    return found


def asking(zone: bytes, seconds: float = PROBE_SECONDS) -> Probe:
    """A probe that asks for the zone's version over UDP, and waits so long for the answer."""
    question = wire.question(wire.join([b"dns-version"], zone), wire.TXT)

    async def probe(address: str, port: int) -> bool:
        loop = asyncio.get_running_loop()
        query = secrets.token_bytes(2) + wire.QUERY_PLAIN + question
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            async with asyncio.timeout(seconds):
                with socket.socket(family, socket.SOCK_DGRAM) as udp:
                    udp.setblocking(False)
                    udp.connect((address, port))
                    await loop.sock_sendall(udp, query)
                    reply = await loop.sock_recv(udp, wire.UDP_SIZE)
        except (OSError, TimeoutError):
            return False
        return len(reply) > wire.HEADER and reply[:2] == query[:2] and reply[3] & 0xF == wire.NOERROR

    return probe


class Watch:
    """Asks the neighbours of `node` until cancelled, once `slices` (this cluster's) have synced."""

    def __init__(
        self,
        session: Session,
        slices: Informer[EndpointSlice],
        *,
        node: str,
        probe: Probe,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._session = session
        self._slices = slices
        self._node = node
        self._probe = probe
        self._probe_seconds = probe_seconds
        self._watched: dict[str, _Watched] = {}

    async def run(self) -> None:
        while True:
            await asyncio.gather(asyncio.sleep(self._probe_seconds), self._look())

    def _announced(self) -> dict[str, tuple[str, int, bool]]:
        """Node -> (address, port, ready). A slice whose endpoint isn't ready is kept without one: known by name."""
        found = {}
        prefix = slice_name("")
        for piece in self._slices.by_index("service", (NAMESPACE, SERVICE)):
            ports = [port.port for port in piece.ports or () if port.protocol == "UDP" and port.port]
            if piece.name.startswith(prefix) and ports:
                address = piece.endpoints[0].addresses[0] if piece.endpoints else ""
                found[piece.name.removeprefix(prefix)] = (address, ports[0], bool(piece.endpoints))
        return found

    async def _look(self) -> None:
        announced = self._announced()
        serving = {name: ready for name, (_, _, ready) in announced.items()}
        for name in neighbours(self._node, serving):
            address, port, ready = announced[name]
            if not ready:
                continue
            state = self._watched.setdefault(name, _Watched())
            if await self._probe(address, port):
                state.misses = 0
                continue
            state.misses += 1
            if state.misses >= state.allowed and sum(serving.values()) > 1:
                state.misses, state.allowed = 0, min(state.allowed * 2, MOST_MISSES)
                await self._take_out(name)

    async def _take_out(self, name: str) -> None:
        conditions = {"ready": False, "serving": False, "terminating": False}
        try:
            found = await self._session.get(ENDPOINT_SLICE, NAMESPACE, slice_name(name))
            endpoints = [one | {"conditions": conditions} for one in found.get("endpoints") or ()]
            patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "endpoints": endpoints}
            await self._session.patch(ENDPOINT_SLICE, NAMESPACE, slice_name(name), patch)
        except (ApiError, Unreachable) as error:
            log.warning("%s does not answer, and can't be taken out of kube-dns: %s", name, error)
        else:
            log.warning("%s does not answer: taken out of kube-dns until it does", name)
