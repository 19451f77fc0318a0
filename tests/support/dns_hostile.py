"""Packets that nobody should send: malformed, mutated and random ones, and what every reply to them must keep to."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterable, Iterator

from kubesvc.dns import wire

WINDOW = 64  # packets under way
REPLY_SECONDS = 60.0  # that the last replies may take

_NAME = wire.encode_name("web.default.svc.cluster.local")
_SRV = wire.encode_name("_http._tcp.crowd.default.svc.cluster.local")
_CROWD = wire.encode_name("crowd.default.svc.cluster.local")


def query(name: bytes, kind: int = 1, *, payload: int | None = None, tail: bytes = b"") -> bytes:
    """A good query with the id 0."""
    opt = b"" if payload is None else struct.pack("!BHHIH", 0, wire.OPT, payload, 0, 0)
    head = struct.pack("!HHHHHH", 0, 0x0100, 1, 0, 0, payload is not None)
    return head + name + struct.pack("!HH", kind, 1) + opt + tail


def corpus() -> list[bytes]:
    """Malformed in every way we could think of, and a few that are merely odd."""
    good = query(_NAME)
    head = good[:12]
    ask = b"\0\1\0\1"
    found = [
        good[:length]
        for length in range(2, len(good))  # cut anywhere
    ]
    found += [
        head + b"\xc0\x0c" + ask,  # a name that is a pointer to itself
        head + b"\xc0\x00" + ask,
        head + b"\3abc\xc0\x0c" + ask,
        head + b"\x40" + b"a" * 64 + b"\0" + ask,  # a label of 64
        head + b"\x80abc\0" + ask,  # a label type that doesn't exist
        head + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 4 + b"\0" + ask,  # a name over 255
        head + b"\1a" * 127 + b"\0" + ask,  # 127 labels
        head + b"\1a" * 300 + b"\0" + ask,
        head + b"\0" + ask,  # the root
        head + b"\4\0\0\0\0\0" + ask,  # zeros in a label
        head + b"\5clust\7er.loca\1l\0" + ask,  # dots in a label
        head + _NAME + b"\0\1\0\3",  # CHAOS
        head + _NAME + b"\0\1\0\xff",  # class ANY
        query(_NAME, 255),  # ANY
        query(_NAME, 251),
        query(_NAME, 252),
        query(_NAME, 0),
        query(_NAME, 65535),
        query(_NAME, 41),  # OPT as a question
        good + b"\0" * 500,  # something behind
        query(_NAME, payload=0),
        query(_NAME, payload=65535),
        query(_CROWD, payload=65535),
        query(_CROWD, payload=513),
        query(_SRV, 33, payload=512),
        query(_SRV, 33, payload=1232),
        query(_NAME, payload=1232, tail=b"\0" * 3),
        query(_NAME, payload=1232) + query(_NAME, payload=1232)[-11:],  # two OPTs
        query(_NAME, payload=1232)[:-2] + b"\xff\xff",  # an OPT that says it is longer
        query(_NAME, payload=1232)[:-2] + b"\0\4\0\x0a\0\0",  # an empty cookie
        query(_NAME, payload=1232)[:-6] + b"\0\1\0\0\0\0",  # EDNS version 1
    ]
    for flags in (0x8000, 0x8180, 0x0900, 0x2000, 0x2800, 0x7800, 0x0110, 0x0010, 0x0000, 0xFFFF, 0x0200, 0x0480):
        found.append(good[:2] + flags.to_bytes(2, "big") + good[4:])
    for counts in (
        (0, 0, 0, 0),
        (2, 0, 0, 0),
        (1, 1, 0, 0),
        (1, 0, 1, 0),
        (1, 0, 0, 1),
        (65535,) * 4,
        (1, 0, 0, 65535),
    ):
        found.append(good[:4] + struct.pack("!HHHH", *counts) + good[12:])
    return found


def packets(seed: int, count: int) -> Iterator[bytes]:
    """The corpus, then `count` mutated and random ones; the same ones for the same seed."""
    chosen = random.Random(seed)
    known = corpus()
    yield from known
    known += [query(_NAME), query(_NAME, 28, payload=1232), query(_SRV, 33, payload=4096), query(_CROWD, payload=1232)]
    for _ in range(count):
        if chosen.random() < 0.1:
            yield chosen.randbytes(chosen.randrange(600))
            continue
        data = bytearray(chosen.choice(known))
        for _ in range(chosen.randrange(1, 6)):
            at = chosen.randrange(2, max(3, len(data)))
            match chosen.randrange(4):
                case 0:
                    data[at : at + 1] = chosen.randbytes(1)
                case 1:
                    del data[at : at + chosen.randrange(1, 8)]
                case 2:
                    data[at:at] = chosen.randbytes(chosen.randrange(1, 8))
                case 3 if at < len(data):
                    data[at] ^= 1 << chosen.randrange(8)
        yield bytes(data)


def most(data: bytes) -> int:
    """How long a reply to `data` over UDP may be: what it says it can take, at least 512."""
    try:
        parsed = wire.parse(data)
    except wire.Odd:
        parsed = None
    return wire.UDP_SIZE if parsed is None or parsed.payload is None else max(wire.UDP_SIZE, parsed.payload)


def bombard(port: int, all_packets: Iterable[bytes]) -> tuple[int, int, list[str]]:
    """(packets sent, replies, what was wrong with them) of a server on 127.0.0.1; a good question ends each window."""
    sent = replies = 0
    wrong: list[str] = []
    last = query(_NAME)[2:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # a window of long replies
        client.connect(("127.0.0.1", port))
        client.settimeout(REPLY_SECONDS)
        under_way: dict[bytes, bytes] = {}

        def collect(until: bytes) -> None:
            nonlocal replies
            while True:
                try:
                    reply = client.recv(65535)
                except TimeoutError:
                    wrong.append("no reply to a good question")
                    return
                replies += 1
                if reply[:2] == until:
                    return
                asked = under_way.pop(reply[:2], None)
                if asked is None:
                    wrong.append(f"a reply with an id that wasn't asked with: {reply!r}")
                elif len(reply) > most(asked):
                    wrong.append(f"{len(reply)} bytes for {most(asked)}: {asked!r}")
                elif not reply[2] & 0x80:
                    wrong.append(f"not a reply: {reply!r} to {asked!r}")

        number = 0
        for data in all_packets:
            number = (number + 1) % 0xFFFF
            if len(data) >= 2:
                data = number.to_bytes(2, "big") + data[2:]
                under_way[data[:2]] = data
            client.send(data)
            sent += 1
            if sent % WINDOW == 0:
                client.send(b"\xff\xff" + last)
                collect(b"\xff\xff")
        client.send(b"\xff\xff" + last)
        collect(b"\xff\xff")
    return sent, replies, wrong
