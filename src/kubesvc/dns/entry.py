"""One answer, ready to be sent: built when the world changes, patched with an id and a question when asked.

    id | head: flags, counts | question, in its case | body: answer, authority, additional | OPT, if asked with one
    ───┘ └───────────────────── Entry ──────────────────────────────────┘

Records in a body name their owner by a pointer to the question, so one body serves every spelling of a name. The head
is that of an answer to a plain query (RD set); `render` makes the others. Addresses of one family have one size, so
turning them round (one step a question) and cutting them short (TC, so that the client comes back over TCP) are
slices. What isn't an answer but only additional is left out without TC when it doesn't fit (RFC 2181, 9).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kubesvc.dns import wire

ADDRESS_SIZE = {wire.A: 16, wire.AAAA: 28}  # of a record that points to the question
_head = struct.Struct("!HHHHH")
_heads: dict[tuple[int, int, int, int], bytes] = {}


def head(rcode: int, answers: int, authority: int, additional: int) -> bytes:
    """Bytes 2-12 of an authoritative answer: QR AA RD RA. Each made once, shared by all entries."""
    key = (rcode, answers, authority, additional)
    found = _heads.get(key)
    if found is None:
        found = _heads[key] = _head.pack(0x8580 | rcode, 1, answers, authority, additional)
    return found


class Entry:
    """An answer. `step` is the size of each record when all of them are addresses, else 0."""

    __slots__ = ("answer_end", "body", "head", "head_opt", "quick", "step", "turn")

    def __init__(
        self, head: bytes, head_opt: bytes, body: bytes, *, step: int = 0, answer_end: int = 0, quick: bool = False
    ) -> None:
        self.head = head
        self.head_opt = head_opt  # the head when an OPT follows the body
        self.body = body
        self.step = step
        self.answer_end = answer_end  # where in the body the answer section ends
        self.quick = quick  # fits every client and is never turned: may be sent as it is
        self.turn = 0

    @property
    def rcode(self) -> int:
        return self.head[1] & 0xF


def make(
    question_size: int,
    answers: Sequence[bytes],
    *,
    rcode: int = wire.NOERROR,
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    step: int = 0,
) -> Entry:
    """An entry of these encoded records, for questions of `question_size` bytes."""
    body = b"".join([*answers, *authority, *additional])
    counts = (rcode, len(answers), len(authority))
    size = wire.HEADER + question_size + len(body) + wire.OPT_SIZE
    return Entry(
        head(*counts, len(additional)),
        head(*counts, len(additional) + 1),
        body,
        step=step,
        answer_end=sum(map(len, answers)),
        quick=size <= wire.UDP_SIZE and (step == 0 or len(answers) < 2),
    )


def addresses(entry: Entry) -> list[bytes]:
    """The address data in an entry of addresses."""
    return [entry.body[at + 12 : at + entry.step] for at in range(0, entry.answer_end, entry.step)]


def render(query: wire.Query, entry: Entry, limit: int) -> bytes:
    """The whole answer to `query`, at most `limit` bytes."""
    flags, _, answers, authority, additional = _head.unpack(entry.head)
    body = entry.body
    if entry.step and answers > 1:
        at = entry.turn = (entry.turn + entry.step) % entry.answer_end
        body = body[at : entry.answer_end] + body[:at] + body[entry.answer_end :]
    opt = b""
    if query.payload is not None:
        opt = struct.pack("!BHHIH", 0, wire.OPT, wire.OUR_PAYLOAD, 0x8000 if query.dnssec_ok else 0, 0)
    room = limit - wire.HEADER - len(query.question) - len(opt)
    if len(body) > room and authority == 0 and additional:
        body, additional = body[: entry.answer_end], 0
    if len(body) > room:
        answers = room // entry.step if entry.step else 0
        body, authority, additional = body[: answers * entry.step], 0, 0
        flags |= 0x0200  # TC
    flags = flags & ~0x0100 | query.flags & 0x0110  # RD and CD come back as they were
    packed = _head.pack(flags, 1, answers, authority, additional + bool(opt))
    return b"".join([query.id, packed, query.question, body, opt])
