"""Streams over one SPDY connection, the server's side of it.

Kubernetes' clients neither grant windows nor count them, so it is the connection itself that bounds memory: a stream
whose reader is slow stops the reading of all, and a write waits until the connection takes it. Windows are granted
all the same, for a client that counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from kubesvc.client.tunnel import Duplex
from kubesvc.node.spdy.frames import (
    CANCEL,
    INVALID_STREAM,
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

MOST_STREAMS = 1024  # open at once
MOST_POSTED = 4096  # frames that wait for a client that doesn't read
UNREAD = 1 << 18  # bytes a stream holds for its reader
GRANT = 1 << 15  # bytes read before a window is opened again
PIECE = 1 << 15  # bytes of a data frame


class Stream:
    """One stream the client has opened. A Duplex."""

    def __init__(self, connection: Connection, id_: int, headers: Mapping[str, str]) -> None:
        self.id, self.headers = id_, headers
        self._connection = connection
        self._unread = bytearray()
        self._read = 0  # bytes not granted again yet
        self._changed = asyncio.Event()
        self.ended = False  # the client sends no more
        self.finished = False  # we don't
        self.gone = False  # reset, or the connection is

    async def read(self) -> bytes:
        while not self._unread:
            if self.ended or self.gone:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._unread)
        self._unread.clear()
        self._changed.set()
        self._read += len(data)
        if self._read >= GRANT and not self.ended:
            self._connection.grant(self.id, self._read)
            self._read = 0
        return data

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            if self.gone or self.finished:
                raise ConnectionResetError("the stream is closed")
            await self._connection.send(Data(self.id, data[at : at + PIECE]))

    def finish(self) -> None:
        """Nothing more will be written."""
        if not (self.finished or self.gone):
            self.finished = True
            self._connection.post(Data(self.id, b"", fin=True))
            self._connection.settle(self)

    def close(self) -> None:
        self.finish()
        if not (self.ended or self.gone):
            self.reset(CANCEL)

    def reset(self, status: int) -> None:
        if not self.gone:
            self._connection.post(Reset(self.id, status))
            self.leave()

    # ── what the connection tells it ─────────────────────────────────────────────────────────────────────────────────

    async def take(self, data: bytes, fin: bool) -> None:
        """Returns when there is room for more."""
        self._unread += data
        if fin:
            self.ended = True
            self._connection.settle(self)
        self._changed.set()
        while len(self._unread) > UNREAD and not self.gone:
            self._changed.clear()
            await self._changed.wait()

    def leave(self) -> None:
        self.gone = True
        self._connection.settle(self)
        self._changed.set()


class Connection:
    """`run` it; each stream that the client opens is given to `opened`."""

    def __init__(self, wire: Duplex, opened: Callable[[Stream], None]) -> None:
        self._wire, self._opened = wire, opened
        self._encoder, self._decoder = Encoder(), Decoder()
        self._streams: dict[int, Stream] = {}  # id -> an open stream
        self._last = 0  # the highest id the client has used
        self._outgoing = asyncio.Lock()
        self._posted: set[asyncio.Task[None]] = set()
        self._grants: dict[int, int] = {}  # stream -> bytes whose grant waits to be sent
        self._read = 0

    async def run(self) -> None:
        """Until the client is gone. Raises SpdyError when it isn't SPDY that comes."""
        try:
            while data := await self._wire.read():
                for frame in self._decoder.feed(data):
                    if isinstance(frame, GoAway):
                        return
                    await self._handle(frame)
                    if len(self._posted) > MOST_POSTED:
                        await self.flush()
                self._read += len(data)
                if self._read >= GRANT:
                    self.grant(0, self._read)
                    self._read = 0
        except ConnectionError:
            pass
        except SpdyError:
            await self.send(GoAway(self._last, PROTOCOL_ERROR))
            raise
        finally:
            for stream in list(self._streams.values()):
                stream.leave()

    async def _handle(self, frame: Frame) -> None:
        match frame:
            case SynStream(id_, headers, fin):
                await self._open(id_, headers, fin)
            case Data(id_, data, fin) | Headers(id_, data, fin):
                stream = self._streams.get(id_)
                if stream is not None:
                    await stream.take(data if isinstance(data, bytes) else b"", fin)
                elif id_ > self._last:
                    self.post(Reset(id_, INVALID_STREAM))
            case Reset(id_):
                if (stream := self._streams.get(id_)) is not None:
                    stream.leave()
            case Ping(id_) if id_ % 2:  # the client's own; an even one would answer ours
                self.post(frame)

    async def _open(self, id_: int, headers: Mapping[str, str], fin: bool) -> None:
        if id_ % 2 == 0 or id_ <= self._last:
            self.post(Reset(id_, PROTOCOL_ERROR))
            return
        self._last = id_
        if len(self._streams) >= MOST_STREAMS:
            self.post(Reset(id_, REFUSED_STREAM))
            return
        stream = self._streams[id_] = Stream(self, id_, headers)
        # The client drops data that comes before the reply.
        self.post(SynReply(id_))
        if fin:
            await stream.take(b"", fin=True)
        self._opened(stream)

    async def send(self, frame: Frame) -> None:
        """Encoded in the order sent: header blocks share one zlib stream. Raises OSError."""
        async with self._outgoing:
            await self._wire.write(self._encoder.encode(frame))

    def grant(self, id_: int, size: int) -> None:
        """Open the window of a stream, or with 0 of the connection, by `size` more bytes; what waits is added up."""
        waiting = id_ in self._grants
        self._grants[id_] = self._grants.get(id_, 0) + size
        if not waiting:
            self._post(lambda: WindowUpdate(id_, self._grants.pop(id_)))

    def post(self, frame: Frame) -> None:
        """Send without waiting, in order; `flush` waits.

        Reading must not wait for a client that reads nothing: it may be one that first sends everything.
        """
        self._post(lambda: frame)

    def _post(self, make: Callable[[], Frame]) -> None:
        async def send() -> None:
            with suppress(OSError):
                async with self._outgoing:
                    await self._wire.write(self._encoder.encode(make()))

        task = asyncio.get_running_loop().create_task(send())
        self._posted.add(task)
        task.add_done_callback(self._posted.discard)

    async def flush(self) -> None:
        """Wait until everything posted is on its way."""
        while self._posted:
            await asyncio.wait(set(self._posted))

    def settle(self, stream: Stream) -> None:
        """Forget a stream that is over on both sides."""
        if stream.gone or (stream.ended and stream.finished):
            self._streams.pop(stream.id, None)
