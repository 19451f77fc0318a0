"""An upstream resolver on loopback for tests: says what a function says, over UDP and TCP, and counts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Reply = Callable[[dns.message.Message], dns.message.Message | None]


def bound_pair() -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on one free port of 127.0.0.1."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen()
        return udp, tcp


def example(query: dns.message.Message) -> dns.message.Message:
    """Addresses for www.example.com, many for many.example.com, NXDOMAIN for the rest."""
    reply = dns.message.make_response(query, recursion_available=True)
    name = query.question[0].name
    match name.to_text().lower():
        case "www.example.com.":
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
        case "many.example.com.":
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *(f"192.0.2.{n}" for n in range(1, 201))))
        case _:
            reply.set_rcode(dns.rcode.NXDOMAIN)
            soa = "ns.example.com. root.example.com. 1 2 3 4 20"
            reply.authority.append(dns.rrset.from_text("example.com.", 60, "IN", "SOA", soa))
    return reply


class Upstream(asyncio.DatagramProtocol):
    """`asked` are the questions so far; `reply` may be changed while it runs (None: silence)."""

    def __init__(self, reply: Reply = example) -> None:
        self.reply = reply
        self.asked: list[str] = []
        self.ports: list[int] = []
        self.ids: list[int] = []
        self.address = ""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def say(self, reply: dns.message.Message) -> None:
        """Send a reply, whatever it is, to who asked last over UDP."""
        self._transport.sendto(reply.to_wire(), ("127.0.0.1", self.ports[-1]))

    def datagram_received(self, data: bytes, peer: Any) -> None:
        if answer := self._answer(data, peer, 1232):
            self._transport.sendto(answer, peer)

    def _answer(self, data: bytes, peer: Any, size: int) -> bytes | None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].to_text())
        self.ports.append(peer[1])
        self.ids.append(query.id)
        reply = self.reply(query)
        return reply.to_wire(max_size=size, prefer_truncation=True) if reply else None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        data = await reader.readexactly(size)
        if answer := self._answer(data, writer.get_extra_info("peername"), 65535):
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def upstream(reply: Reply = example) -> AsyncIterator[Upstream]:
    """An upstream that runs; its `address` is what a DnsConfig takes."""
    udp, tcp = bound_pair()
    one = Upstream(reply)
    one.address = f"127.0.0.1:{udp.getsockname()[1]}"
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: one, sock=udp)
    server = await asyncio.start_server(one.connected, sock=tcp)
    try:
        yield one
    finally:
        transport.close()
        server.close()
        await server.wait_closed()
