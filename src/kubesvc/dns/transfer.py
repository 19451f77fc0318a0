"""Whole zones for other servers: AXFR over TCP, and IXFR answered as far as it needs no history. Pure.

    asked            by whom    answer
    AXFR, TCP        allowed    SOA, every record, SOA; in as many messages as it takes (RFC 5936)
    IXFR, TCP        allowed    the same, or the SOA alone for who has this serial already (RFC 1995, 4)
    IXFR, UDP        allowed    the SOA alone: newer than the asker's, it comes back over TCP
    AXFR, UDP        anybody    REFUSED
    any              others     REFUSED; of a name that is no zone of ours: NOTAUTH

The records are read out of the table of answers, at one moment: a zone is never half of one revision and half of the
next. What is made up for a question (a-b-c-d.ns.pod) is no record, and isn't transferred.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

import dns.exception
import dns.message
import dns.rdatatype

from kubesvc.dns import wire
from kubesvc.dns.answers import Answers
from kubesvc.dns.zones import Network, Zone

NOTAUTH = 9
MESSAGE = 16384  # bytes, about: what is sent at once


class Transfers:
    """What `answers` has, for clients in the networks `allowed`."""

    def __init__(self, answers: Answers, allowed: Iterable[Network] = ()) -> None:
        self._answers = answers
        self._allowed = tuple(allowed)

    def answer(self, data: bytes, query: wire.Query, client: str, *, tcp: bool) -> Iterator[bytes]:
        """The messages that answer a query of type AXFR or IXFR from the address `client`."""
        if not self._allows(client) or (query.type == wire.AXFR and not tcp):
            yield wire.error(data, wire.REFUSED, query.question)
            return
        zone = self._answers.zones.at(query.name.lower())
        if zone is None:
            yield wire.error(data, NOTAUTH, query.question)
        elif not self._answers.synced:
            yield wire.error(data, wire.SERVFAIL, query.question)
        elif query.type == wire.IXFR and (not tcp or _serial_of(data) == self._answers.serials[zone.name]):
            yield _message(query, list(self._soa(zone)))
        else:
            yield from _messages(query, self._records(zone))

    def _allows(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._allowed)

    def _soa(self, zone: Zone) -> Iterator[bytes]:
        found = self._answers.table[wire.question(zone.name, wire.SOA)]
        yield from _records_of(zone.name, found.body, found.answer_end)

    def _records(self, zone: Zone) -> Iterator[bytes]:
        """SOA, everything else, SOA."""
        zones, soa = self._answers.zones, wire.question(zone.name, wire.SOA)
        ends = list(self._soa(zone))
        inside = [
            (question[:-4], found.body, found.answer_end)
            for question, found in self._answers.table.items()
            if question.endswith(zone.name, 0, -4) and question != soa and found.answer_end
        ]
        yield from ends
        for name, body, end in inside:
            if zones.of(name) == zone:  # and not in one below it
                yield from _records_of(name, body, end)
        yield from ends


def _records_of(name: bytes, body: bytes, end: int) -> Iterator[bytes]:
    """The records of an answer section, each under its own name instead of a pointer to the question."""
    at = 0
    while at < end:
        size = 12 + int.from_bytes(body[at + 10 : at + 12], "big")
        yield name + body[at + 2 : at + size]
        at += size


def _messages(query: wire.Query, records: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for record in records:
        waiting.append(record)
        size += len(record)
        if size >= MESSAGE:
            yield _message(query, waiting)
            waiting, size = [], 0
    if waiting:
        yield _message(query, waiting)


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
