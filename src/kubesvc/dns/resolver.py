"""The slow path: any question over any transport, as bytes in and bytes out, the upstreams asked where needed.

The fast path of `server` knows plain questions of the table alone; everything else comes here. What the zone answers is
rendered from its entry; what it doesn't is put together with dnspython from the upstreams' reply.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from kubesvc.dns import entry, wire
from kubesvc.dns.answers import Alias, Answers, Guess
from kubesvc.dns.entry import Entry
from kubesvc.dns.forward import Forwarder, ForwardError, NoUpstream, Reply
from kubesvc.dns.transfer import Transfers

log = logging.getLogger(__name__)

TCP_LIMIT = 65535


class Resolver:
    """Answers messages from `answers`, and through `forwarder` what isn't there; zones as a whole by `transfers`."""

    def __init__(self, answers: Answers, forwarder: Forwarder, transfers: Transfers | None = None) -> None:
        self._answers = answers
        self._forwarder = forwarder
        self._transfers = transfers or Transfers(answers)  # to nobody

    def local(
        self, data: bytes, *, tcp: bool, namespace: bytes = b"", client: bytes = b""
    ) -> bytes | AsyncIterator[bytes] | wire.Query | None:
        """The answer to the message `data`, over TCP perhaps in several messages; the parsed query where an upstream
        is needed; None for no answer.

        `namespace` is the asker's where its search path is to be completed, `client` its packed address.
        """
        try:
            query = wire.parse(data)
        except wire.Odd as odd:
            return wire.error(data, odd.rcode, odd.question)
        if query is None:
            return None
        if query.type in (wire.AXFR, wire.IXFR):
            return self._transfers.answer(data, query, client, tcp=tcp)
        found = self._answers.find(query.question, namespace)
        if isinstance(found, Entry):
            return entry.render(query, found, limit(query, tcp=tcp))
        if query.type == wire.HINFO and self._forwarder.is_loop(_name(query.name)):
            return wire.error(data, wire.REFUSED, query.question)
        return query

    async def remote(self, data: bytes, query: wire.Query, *, tcp: bool, namespace: bytes = b"") -> bytes:
        """The answer to a query that `local` handed back."""
        found = self._answers.find(query.question, namespace)
        if isinstance(found, Entry):  # became ours meanwhile
            return entry.render(query, found, limit(query, tcp=tcp))
        response = _response(query)
        if isinstance(found, Guess):
            if not await self._guessed(response, found, query):
                return await self.remote(data, query, tcp=tcp)
            if _has(response, query.type):
                return _to_wire(response, limit(query, tcp=tcp))
            return entry.render(query, found.nothing, limit(query, tcp=tcp))
        target = response.question[0].name
        if found is not None:
            _add_chain(response, found)
            target = _name(found.target)
        try:
            reply = await self._forwarder.ask(target, query.type, dnssec_ok=query.dnssec_ok)
        except NoUpstream:
            response.set_rcode(dns.rcode.REFUSED)
        except ForwardError:
            response.set_rcode(dns.rcode.SERVFAIL)
        else:
            _add_reply(response, reply)
            if found and found.nothing and not reply.message.rcode() and not _has(response, query.type):
                return entry.render(query, found.nothing, limit(query, tcp=tcp))
        return _to_wire(response, limit(query, tcp=tcp))

    async def _guessed(self, response: dns.message.Message, guess: Guess, query: wire.Query) -> bool:
        """Put the first of the guess's names that exists into `response`. False: none does, or nobody can say."""
        for target in guess.targets:
            try:
                reply = await self._forwarder.ask(_name(target), query.type, dnssec_ok=query.dnssec_ok)
            except ForwardError:
                return False  # the client will ask for the name itself, and learn the reason
            if reply.message.rcode() == dns.rcode.NOERROR:
                _add_chain(response, Alias(((query.name, target),), target, guess.ttl))
                _add_reply(response, reply)
                return True
            if reply.message.rcode() != dns.rcode.NXDOMAIN:
                return False
        return False

    async def answer(self, data: bytes, *, tcp: bool, namespace: bytes = b"") -> bytes | None:
        """The answer to the message `data`, None when it deserves none, or is a whole zone."""
        found = self.local(data, tcp=tcp, namespace=namespace)
        if isinstance(found, wire.Query):
            return await self.remote(data, found, tcp=tcp, namespace=namespace)
        return found if isinstance(found, bytes) else None


def limit(query: wire.Query, *, tcp: bool) -> int:
    """How many bytes an answer may have."""
    return TCP_LIMIT if tcp else query.payload or wire.UDP_SIZE


def _response(query: wire.Query) -> dns.message.Message:
    """An empty answer. Made of what `wire.parse` has read: what else came with the question is nobody's business."""
    asked = dns.message.QueryMessage(id=int.from_bytes(query.id, "big"))
    asked.flags = dns.flags.Flag(query.flags)
    asked.question.append(
        dns.rrset.RRset(_name(query.name), dns.rdataclass.IN, dns.rdatatype.RdataType.make(query.type))
    )
    if query.payload is not None:
        asked.use_edns(0, dns.flags.DO if query.dnssec_ok else 0, query.payload)
    return dns.message.make_response(asked, recursion_available=True, our_payload=wire.OUR_PAYLOAD)


def _name(name: bytes) -> dns.name.Name:
    return dns.name.from_wire(name, 0)[0]


def _add_chain(response: dns.message.Message, alias: Alias) -> None:
    """CNAMEs from the question's name, in its own case, to the name that an upstream was asked for."""
    response.flags |= dns.flags.AA
    owner = response.question[0].name
    for _, to in alias.chain:
        target = _name(to)
        response.answer.append(dns.rrset.from_text_list(owner, alias.ttl, "IN", "CNAME", [target.to_text()]))
        owner = target


def _add_reply(response: dns.message.Message, reply: Reply) -> None:
    """The upstream's sections, aged; its own OPT stays behind, as EDNS is between neighbours."""
    response.set_rcode(reply.message.rcode())
    response.flags |= reply.message.flags & dns.flags.AD
    asked = response.question[0].name
    for section, found in (
        (response.answer, reply.message.answer),
        (response.authority, reply.message.authority),
        (response.additional, reply.message.additional),
    ):
        for rrset in found:
            name = asked if rrset.name == asked else rrset.name  # in the asker's case
            section.append(dns.rrset.from_rdata_list(name, reply.ttl(rrset.ttl), list(rrset)))


def _has(response: dns.message.Message, kind: int) -> bool:
    return any(rrset.rdtype == kind for rrset in response.answer)


def _to_wire(response: dns.message.Message, size: int) -> bytes:
    return response.to_wire(max_size=size, prefer_truncation=True)
