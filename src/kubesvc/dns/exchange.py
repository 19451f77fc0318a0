"""One question to one upstream, and its reply: over UDP with TCP when it was cut, or over TLS (RFC 7858).

A reply counts only if it comes from the address asked, to the port asked from, with the id and the question sent; with
`random_case` also in the letters' case (0x20), which few forgers guess and a few old servers don't keep. Sockets come
from a factory, since a box asks from the host's namespace.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype

from kubesvc.dns.config import SocketFactory
from kubesvc.dns.upstreams import Endpoint

PAYLOAD = 1232
KEPT_OPEN = 4  # TLS connections to one upstream that wait for the next question

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Upstream:
    """A resolver that is asked, and how it has been doing."""

    def __init__(
        self,
        endpoint: Endpoint,
        socket_factory: SocketFactory,
        *,
        random_case: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.failures = 0  # in a row
        self.down = False  # passed over, while somebody else is up
        self.looping = False  # what it is asked comes back to us: never asked
        self.asked = 0
        self.failed = 0
        self._socket_factory = socket_factory
        self._random_case = random_case
        self._tls = tls
        self._idle: list[_Connection] = []

    def __str__(self) -> str:
        return f"{self.endpoint.address} port {self.endpoint.port}"

    async def ask(self, name: dns.name.Name, kind: int, *, dnssec_ok: bool = False) -> dns.message.Message:
        """Its reply to a question of class IN. Raises OSError, EOFError, DNSException."""
        asked = _mixed(name) if self._random_case else name
        rdtype = dns.rdatatype.RdataType.make(kind)
        query = dns.message.make_query(asked, rdtype, use_edns=0, payload=PAYLOAD, want_dnssec=dnssec_ok)
        query.id = secrets.randbits(16)
        self.asked += 1
        if self.endpoint.tls_name is not None:
            return await self._over_tls(query)
        reply = await self._over_udp(query)
        return await self._over_tcp(query) if reply.flags & dns.flags.TC else reply

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    @property
    def _family(self) -> int:
        return socket.AF_INET6 if ":" in self.endpoint.address else socket.AF_INET

    def _answers(self, query: dns.message.Message, reply: dns.message.Message) -> bool:
        if not query.is_response(reply):
            return False
        return not self._random_case or reply.question[0].name.labels == query.question[0].name.labels

    async def _over_udp(self, query: dns.message.Message) -> dns.message.Message:
        loop = asyncio.get_running_loop()
        with self._socket_factory(self._family, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(self.endpoint[:2])  # the kernel picks a random port, and drops what others send to it
            await loop.sock_sendall(udp, query.to_wire())
            while True:
                reply = _parse(await loop.sock_recv(udp, 65535))
                if reply is not None and self._answers(query, reply):
                    return reply

    async def _over_tcp(self, query: dns.message.Message) -> dns.message.Message:
        loop = asyncio.get_running_loop()
        with self._socket_factory(self._family, socket.SOCK_STREAM) as tcp:
            tcp.setblocking(False)
            await loop.sock_connect(tcp, self.endpoint[:2])
            wire = query.to_wire()
            await loop.sock_sendall(tcp, len(wire).to_bytes(2, "big") + wire)
            size = int.from_bytes(await _receive(loop, tcp, 2), "big")
            return self._whole(query, await _receive(loop, tcp, size))

    def _whole(self, query: dns.message.Message, data: bytes) -> dns.message.Message:
        reply = dns.message.from_wire(data)
        if not self._answers(query, reply):
            raise ConnectionError(f"{self} answered another question")
        return reply

    async def _over_tls(self, query: dns.message.Message) -> dns.message.Message:
        if self._idle:
            try:
                return await self._on(self._idle.pop(), query)
            except (OSError, EOFError):  # it was closed meanwhile
                pass
        return await self._on(await self._connect(), query)

    async def _connect(self) -> _Connection:
        if self._tls is None:  # reads the machine's authorities: once, and only when needed
            self._tls = ssl.create_default_context()
        tcp = self._socket_factory(self._family, socket.SOCK_STREAM)
        try:
            tcp.setblocking(False)
            await asyncio.get_running_loop().sock_connect(tcp, self.endpoint[:2])
            return await asyncio.open_connection(
                sock=tcp, ssl=self._tls, server_hostname=self.endpoint.tls_name or self.endpoint.address
            )
        except BaseException:
            tcp.close()
            raise

    async def _on(self, connection: _Connection, query: dns.message.Message) -> dns.message.Message:
        reader, writer = connection
        try:
            wire = query.to_wire()
            writer.write(len(wire).to_bytes(2, "big") + wire)
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(2), "big")
            reply = self._whole(query, await reader.readexactly(size))
        except BaseException:
            writer.close()
            raise
        if len(self._idle) < KEPT_OPEN:
            self._idle.append(connection)
        else:
            writer.close()
        return reply


async def _receive(loop: asyncio.AbstractEventLoop, tcp: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = await loop.sock_recv(tcp, size - len(parts))
        if not part:
            raise EOFError(f"the connection ended after {len(parts)} of {size} bytes")
        parts += part
    return parts


def _mixed(name: dns.name.Name) -> dns.name.Name:
    """The name with each letter's case drawn."""
    return dns.name.Name(
        [
            bytes(b ^ 0x20 if 65 <= b & ~0x20 <= 90 and secrets.randbits(1) else b for b in label)
            for label in name.labels
        ]
    )


def _parse(data: bytes) -> dns.message.Message | None:
    """A message, None when it isn't one: over UDP anybody may send anything, so the wait goes on."""
    try:
        return dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
    except dns.exception.DNSException:
        return None
