"""The name server of a box's cloud: a balancer's host name -> its address. Each node's DNS server asks it.

Over UDP alone: an answer is one record. Whoever reaches the node network may ask it, this machine too.
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

from kubesvc.dns import wire
from kubesvc.loadbalancer.providers.desk.ledger import Ledger
from kubesvc.loadbalancer.providers.desk.model import DOMAIN

log = logging.getLogger(__name__)

PORT = 53
TTL, NEGATIVE_TTL = 60, 1  # seconds; the first as a cloud's, the second so that a new name is there at once
_ZONE = wire.encode_name(DOMAIN)


async def run(directory: Path, address: IPv4Address) -> None:
    """Answer until cancelled."""
    ledger = Ledger(directory)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Server(ledger), local_addr=(str(address), PORT))
    try:
        await loop.create_future()
    finally:
        transport.close()


class _Server(asyncio.DatagramProtocol):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        found = {b.hostname: b.address for b in self._ledger.read() if b.hostname}
        if (said := answer(data, found)) is not None:
            self._transport.sendto(said, addr)


def answer(data: bytes, addresses: dict[str, str]) -> bytes | None:
    """The answer to a query. `addresses`: host name -> address."""
    try:
        query = wire.parse(data)
    except wire.Odd as odd:
        return wire.error(data, odd.rcode, odd.question)
    if query is None:
        return None
    name = query.name.lower()
    if not name.endswith(_ZONE):
        return wire.error(data, wire.REFUSED, query.question)
    address = addresses.get(wire.to_text(name).removesuffix("."))
    records: list[bytes] = []
    authority: list[bytes] = []
    rcode = wire.NOERROR
    if address is not None and query.type == wire.A:
        records.append(wire.record(wire.TO_QUESTION, wire.A, TTL, IPv4Address(address).packed))
    else:
        above = any(("." + known).endswith("." + wire.to_text(name).removesuffix(".")) for known in addresses)
        rcode = wire.NOERROR if above or name == _ZONE else wire.NXDOMAIN
        soa = wire.soa(wire.join([b"ns"], _ZONE), wire.join([b"hostmaster"], _ZONE), 1, NEGATIVE_TTL)
        authority.append(wire.record(_ZONE, wire.SOA, NEGATIVE_TTL, soa))
    flags = 0x8400 | (query.flags & 0x0100) | rcode
    counts = [1, len(records), len(authority), int(query.payload is not None)]
    head = query.id + b"".join(n.to_bytes(2, "big") for n in (flags, *counts))
    opt = wire.OUR_OPT if query.payload is not None else b""
    return head + query.question + b"".join(records) + b"".join(authority) + opt
