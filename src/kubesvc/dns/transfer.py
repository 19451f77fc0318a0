"""Whole zones for other servers: AXFR over TCP, and IXFR answered as far as it needs no history.

    asked            by whom    answer
    AXFR, TCP        allowed    SOA, every record, SOA; in as many messages as it takes (RFC 5936)
    IXFR, TCP        allowed    the same, or the SOA alone for who has this serial already (RFC 1995, 4)
    IXFR, UDP        allowed    the SOA alone: newer than the asker's, it comes back over TCP
    AXFR, UDP        anybody    REFUSED
    any              others     REFUSED; of a name that is no zone of ours: NOTAUTH

A zone is sent as it was at one moment, never half of one revision and half of the next: its records are gathered in
steps, between which questions are answered, and anew when something changed meanwhile; the last time without a pause.
What is made up for a question (a-b-c-d.ns.pod) is no record, and isn't sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Iterable

import dns.exception
import dns.message
import dns.rdatatype

from kubesvc.dns import wire
from kubesvc.dns.answers import Answers
from kubesvc.dns.entry import Entry
from kubesvc.dns.records import Record
from kubesvc.dns.zones import Network, Zone

NOTAUTH = 9
MESSAGE = 16384  # bytes, about: what is sent at once
STEP = 200  # Services between two pauses
TRIES = 3


class Transfers:
    """What `answers` has, for clients in the networks `allowed`."""

    def __init__(self, answers: Answers, allowed: Iterable[Network] = ()) -> None:
        self._answers = answers
        self._allowed = tuple(allowed)

    def answer(self, data: bytes, query: wire.Query, client: bytes, *, tcp: bool) -> bytes | AsyncIterator[bytes]:
        """What answers a query of type AXFR or IXFR from the packed address `client`: one message, or several."""
        if not self._allows(client) or (query.type == wire.AXFR and not tcp):
            return wire.error(data, wire.REFUSED, query.question)
        zone = self._answers.zones.at(query.name.lower())
        if zone is None:
            return wire.error(data, NOTAUTH, query.question)
        if not self._answers.synced:
            return wire.error(data, wire.SERVFAIL, query.question)
        if query.type == wire.IXFR and (not tcp or _serial_of(data) == self._answers.serials[zone.name]):
            found = self._answers.find(wire.question(zone.name, wire.SOA))
            assert isinstance(found, Entry)
            return _message(query, [zone.name + found.body[2:]])
        return self._messages(query, zone)

    def _allows(self, client: bytes) -> bool:
        if len(client) not in (4, 16):
            return False
        address = ipaddress.ip_address(client)
        return any(address in network for network in self._allowed)

    async def _messages(self, query: wire.Query, zone: Zone) -> AsyncIterator[bytes]:
        """SOA, everything else, SOA."""
        soa, *others = await self._gather(zone)
        waiting: list[bytes] = []
        size = 0
        for record in (soa, *others, soa):
            waiting.append(record)
            size += len(record)
            if size >= MESSAGE:
                yield _message(query, waiting)
                waiting, size = [], 0
        if waiting:
            yield _message(query, waiting)

    async def _gather(self, zone: Zone) -> list[bytes]:
        """Every record of the zone at one moment, the SOA first."""
        for attempt in range(1, TRIES + 1):
            before = self._answers.changes
            found: list[Record] = []
            for number, records in enumerate(self._answers.all_records()):
                found += [
                    record for record in records if record.name.endswith(zone.name) and self._inside(record, zone)
                ]
                if number % STEP == STEP - 1 and attempt < TRIES:
                    await asyncio.sleep(0)
            if self._answers.changes == before:
                break
        found.sort(key=lambda record: record.type != wire.SOA)
        return [wire.record(one.name, one.type, one.ttl, one.data) for one in dict.fromkeys(found)]

    def _inside(self, record: Record, zone: Zone) -> bool:
        """Is the record the zone's own, and not that of a zone below it?"""
        return self._answers.zones.of(record.name) is zone


def _message(query: wire.Query, records: list[bytes]) -> bytes:
    flags = 0x8400 | query.flags & 0x0100  # QR AA; RD as it came
    head = query.id + b"".join(n.to_bytes(2, "big") for n in (flags, 1, len(records), 0, 0))
    return head + query.question + b"".join(records)


def _serial_of(data: bytes) -> int | None:
    """The serial that an IXFR's sender has."""
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except dns.exception.DNSException:
        return None
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return int(rrset[0].serial)
    return None
