"""SPDY/3.1: frames there and back, however they are cut; streams over a connection, their windows and their ends."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.node.spdy.dictionary import ADLER32, DICTIONARY
from kubesvc.node.spdy.frames import (
    CANCEL,
    INVALID_STREAM,
    MAX_CONTROL,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Headers,
    Ping,
    Reset,
    SpdyError,
    SynReply,
    SynStream,
    WindowUpdate,
)
from kubesvc.node.spdy.streams import GRANT, MOST_STREAMS, UNREAD, Connection, Stream

DEADLINE = 60.0

streams = st.integers(1, 2**31 - 1)
numbers = st.integers(0, 2**32 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=40)
headers = st.dictionaries(texts.map(str.lower), texts, max_size=6)
frames = st.one_of(
    st.builds(SynStream, streams, headers, st.booleans(), st.booleans()),
    st.builds(SynReply, streams, headers, st.booleans()),
    st.builds(Headers, streams, headers, st.booleans()),
    st.builds(Reset, streams, numbers),
    st.builds(Ping, numbers),
    st.builds(GoAway, streams, numbers),
    st.builds(WindowUpdate, streams, numbers),
    st.builds(Data, streams, st.binary(max_size=300), st.booleans()),
)


def joined(found: list[Frame]) -> list[Frame]:
    """Data of one frame that came in pieces, in one again; a frame of no bytes without an end is nothing."""
    whole: list[Frame] = []
    for frame in found:
        last = whole[-1] if whole else None
        if isinstance(frame, Data) and isinstance(last, Data) and last.stream == frame.stream and not last.fin:
            whole[-1] = Data(frame.stream, last.data + frame.data, frame.fin)
        else:
            whole.append(frame)
    return whole


def test_the_dictionary_is_the_specification_s() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, ADLER32)


@given(st.lists(frames, max_size=8), st.data())
def test_frames_survive_however_the_bytes_are_cut(sent: list[Frame], data: st.DataObject) -> None:
    encoder, decoder = Encoder(), Decoder()
    wire = b"".join(encoder.encode(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    found: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        found += decoder.feed(wire[start:end])
    assert joined(found) == joined(sent)


@given(frames, st.data())
def test_a_frame_cut_short_is_not_a_frame(frame: Frame, data: st.DataObject) -> None:
    wire = Encoder().encode(frame)
    found = joined(list(Decoder().feed(wire[: data.draw(st.integers(0, len(wire) - 1))])))
    assert frame not in found or (isinstance(frame, Data) and not frame.fin)


@given(st.binary(max_size=200))
def test_what_is_not_spdy_is_refused_and_never_hangs(noise: bytes) -> None:
    decoder = Decoder()
    try:
        for _ in range(3):
            list(decoder.feed(noise))
    except SpdyError:
        pass


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (struct.pack(">HHI", 0x8002, 1, 0), "SPDY version 2"),
        (struct.pack(">HHI", 0x8003, 1, MAX_CONTROL + 1), "control frame of 65537 bytes"),
        (struct.pack(">HHI", 0x8003, 3, 4) + b"abcd", "type 3 ends early"),
        (struct.pack(">HHI", 0x8003, 1, 14) + b"\0" * 10 + b"junk", "can't be unpacked"),
    ],
    ids=["another version", "too long", "too short", "not zlib"],
)
def test_a_bad_frame_is_refused(wire: bytes, why: str) -> None:
    with pytest.raises(SpdyError, match=why):
        list(Decoder().feed(wire))


def test_a_header_block_that_unpacks_to_too_much_is_refused() -> None:
    bomb = SynStream(1, {"a": "x" * (1 << 20)})
    with pytest.raises(SpdyError, match="header block of more"):
        list(Decoder().feed(Encoder().encode(bomb)))


def test_settings_and_unknown_frames_are_passed_over() -> None:
    unknown = struct.pack(">HHI", 0x8003, 4, 4) + b"\0\0\0\0" + struct.pack(">HHI", 0x8003, 99, 0)
    assert list(Decoder().feed(unknown + Encoder().encode(Ping(1)))) == [Ping(1)]


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Peer:
    """The client's end of a connection: `send` frames, `expect` the next one that is no grant of a window."""

    def __init__(self) -> None:
        self.encoder, self._decoder = Encoder(), Decoder()
        self._to_server: asyncio.Queue[bytes] = asyncio.Queue()
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.granted: dict[int, int] = {}  # stream -> bytes
        self.opened: asyncio.Queue[Stream] = asyncio.Queue()
        self.passing = asyncio.Event()  # cleared, nothing gets through to the client
        self.passing.set()
        self.taken = 0  # pieces the server has read

    def send(self, *sent: Frame) -> None:
        for frame in sent:
            self._to_server.put_nowait(self.encoder.encode(frame))

    def hang_up(self) -> None:
        self._to_server.put_nowait(b"")

    async def expect(self) -> Frame:
        return await asyncio.wait_for(self._frames.get(), DEADLINE)

    async def open(self, id_: int, **headers: str) -> Stream:
        self.send(SynStream(id_, headers))
        assert await self.expect() == SynReply(id_)
        return await asyncio.wait_for(self.opened.get(), DEADLINE)

    # the server's Duplex

    async def read(self) -> bytes:
        data = await self._to_server.get()
        self.taken += 1
        return data

    async def write(self, data: bytes) -> None:
        await self.passing.wait()
        for frame in self._decoder.feed(data):
            if isinstance(frame, WindowUpdate):
                self.granted[frame.stream] = self.granted.get(frame.stream, 0) + frame.delta
            else:
                self._frames.put_nowait(frame)

    def finish(self) -> None: ...

    def close(self) -> None: ...


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Peer, asyncio.Task[None]]]:
    peer = Peer()
    running = asyncio.create_task(Connection(peer, peer.opened.put_nowait).run())
    try:
        yield peer, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def read(stream: Stream) -> bytes:
    return await asyncio.wait_for(stream.read(), DEADLINE)


async def test_a_stream_carries_bytes_both_ways_and_each_end_by_itself() -> None:
    async with connected() as (peer, _):
        stream = await peer.open(1, streamtype="data")
        assert stream.headers == {"streamtype": "data"}
        peer.send(Data(1, b"there"), Data(1, b"", fin=True))
        assert await read(stream) == b"there"
        assert await read(stream) == b""
        await stream.write(b"and back")
        assert await peer.expect() == Data(1, b"and back")
        stream.finish()
        assert await peer.expect() == Data(1, b"", fin=True)
        peer.send(Data(1, b"late"), Ping(1))  # of a stream that is over: nothing
        assert await peer.expect() == Ping(1)


async def test_windows_are_granted_as_a_stream_is_read() -> None:
    async with connected() as (peer, _):
        stream = await peer.open(1)
        peer.send(*[Data(1, b"x" * GRANT)] * 3)
        total = 0
        while total < 3 * GRANT:
            total += len(await read(stream))
        peer.send(Ping(1))
        assert await peer.expect() == Ping(1)
        assert peer.granted[1] == 3 * GRANT
        assert peer.granted[0] >= 3 * GRANT


async def test_a_slow_reader_stops_the_connection_instead_of_filling_memory() -> None:
    async with connected() as (peer, _):
        stream = await peer.open(1)
        pieces = 3 * UNREAD // GRANT
        peer.send(*[Data(1, b"x" * GRANT)] * pieces, Ping(1))
        ping = asyncio.create_task(peer.expect())
        for _ in range(pieces * 10):
            await asyncio.sleep(0)
        assert not ping.done()
        assert peer.taken <= UNREAD // GRANT + 3
        total = 0
        while total < pieces * GRANT:
            total += len(await read(stream))
        assert await ping == Ping(1)


async def test_a_client_that_first_sends_and_then_reads_is_not_waited_for() -> None:
    """What it sends is read although nothing gets through to it."""
    async with connected() as (peer, _):
        stream = await peer.open(1)
        peer.passing.clear()
        writing = asyncio.create_task(stream.write(b"unread"))
        peer.send(*[Data(1, b"x" * GRANT)] * 40, Ping(1))
        total = 0
        while total < 40 * GRANT:
            total += len(await read(stream))
        assert not writing.done()
        peer.passing.set()
        assert await peer.expect() == Data(1, b"unread")
        assert await peer.expect() == Ping(1)
        assert peer.granted[1] == 40 * GRANT


async def test_a_reset_ends_reading_and_refuses_writing() -> None:
    async with connected() as (peer, _):
        stream = await peer.open(1)
        reading = asyncio.create_task(read(stream))
        peer.send(Reset(1, CANCEL))
        assert await reading == b""
        with pytest.raises(ConnectionResetError):
            await stream.write(b"x")


async def test_streams_end_with_their_connection() -> None:
    async with connected() as (peer, running):
        stream = await peer.open(1)
        peer.hang_up()
        assert await read(stream) == b""
        await asyncio.wait_for(running, DEADLINE)


async def test_ids_that_cannot_be_are_refused() -> None:
    async with connected() as (peer, _):
        await peer.open(3)
        peer.send(SynStream(1))
        assert await peer.expect() == Reset(1, PROTOCOL_ERROR)
        peer.send(SynStream(4))
        assert await peer.expect() == Reset(4, PROTOCOL_ERROR)
        peer.send(Data(9, b"x"))
        assert await peer.expect() == Reset(9, INVALID_STREAM)


async def test_there_is_an_end_to_how_many_streams_are_open() -> None:
    async with connected() as (peer, _):
        for number in range(MOST_STREAMS):
            await peer.open(2 * number + 1)
        last = 2 * MOST_STREAMS + 1
        peer.send(SynStream(last))
        assert await peer.expect() == Reset(last, REFUSED_STREAM)


async def test_a_peer_that_speaks_something_else_is_told_and_left() -> None:
    async with connected() as (peer, running):
        peer.send(Ping(1))
        assert await peer.expect() == Ping(1)
        peer._to_server.put_nowait(struct.pack(">HHI", 0x8002, 1, 0))
        assert await peer.expect() == GoAway(0, PROTOCOL_ERROR)
        with pytest.raises(SpdyError):
            await asyncio.wait_for(running, DEADLINE)
