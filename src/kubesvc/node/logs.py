"""Reading a container's log: CRI lines from conmon, as plain text, to the end or as they come.

    2016-10-06T00:17:09.669794202+00:00 stdout F a whole line
    2016-10-06T00:17:09.669794203+00:00 stdout P the beginning of a long one, to be joined with what follows

Parsing and selection are pure; `follow` waits with inotify and never polls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kubesvc.kernel.inotify import IN_ATTRIB, IN_MODIFY, Inotify

BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Options:
    """What of the log is wanted; None: no such limit. `stream` is stdout, stderr or "" for both."""

    follow: bool = False
    tail: int | None = None  # lines
    since: datetime | None = None
    timestamps: bool = False
    limit: int | None = None  # bytes
    stream: str = ""


def render(line: bytes, options: Options) -> bytes:
    """The text of one CRI line as the client wants it: b"" when it isn't wanted or can't be read."""
    parts = line.split(b" ", 3)
    if len(parts) != 4:
        return b""
    stamp, stream, tag, text = parts
    if options.stream and stream.decode() != options.stream:
        return b""
    if options.since is not None:
        try:
            # The clock gives nanoseconds, datetime keeps microseconds: cut, don't round.
            seconds, _, rest = stamp.decode().partition(".")
            fraction = rest[:6] if rest else "0"
            zone = rest[9:] if len(rest) > 9 else ""
            if datetime.fromisoformat(f"{seconds}.{fraction}{zone or '+00:00'}") < options.since:
                return b""
        except ValueError:
            return b""
    if tag == b"P":
        text = text.rstrip(b"\n")
    return stamp + b" " + text if options.timestamps else text


def tail_offset(file: int, lines: int) -> int:
    """Where the last `lines` lines of an open file begin."""
    position = os.fstat(file).st_size
    if lines <= 0:
        return position
    seen = 0
    while position > 0:
        start = max(0, position - BLOCK)
        block = os.pread(file, position - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if seen == lines:
                return start + at + 1
            seen += 1
        position = start
    return 0


class Limit:
    """Cuts the output after a number of bytes."""

    def __init__(self, limit: int | None) -> None:
        self.left = limit

    def take(self, text: bytes) -> bytes:
        if self.left is None:
            return text
        taken = text[: self.left]
        self.left -= len(taken)
        return taken

    @property
    def reached(self) -> bool:
        return self.left == 0


def _lines(data: bytearray) -> Iterator[bytes]:
    """Take the whole lines out of `data`; the rest stays."""
    end = data.rfind(b"\n") + 1
    whole = bytes(data[:end])
    del data[:end]
    yield from whole.splitlines(keepends=True)


async def read(path: Path, options: Options, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """The log's text in pieces. With `follow`, goes on until `ended` is set and everything has been read.

    Raises FileNotFoundError when there is no log.
    """
    watch = Inotify() if options.follow else None
    try:
        while True:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if watch is not None:  # this file, whatever has the name by now
                    watch.add(Path(f"/proc/self/fd/{file}"), IN_MODIFY | IN_ATTRIB)
                if options.tail is not None:
                    os.lseek(file, tail_offset(file, options.tail), os.SEEK_SET)
                limit = Limit(options.limit)
                async for piece in _read(file, options, limit, watch, ended):
                    yield piece
                if watch is None or limit.reached or _same(path, file):
                    return
                # conmon began the log anew: go on with the new file from its start.
                options = Options(True, None, None, options.timestamps, limit.left, options.stream)
            finally:
                os.close(file)
    finally:
        if watch is not None:
            watch.close()


def _same(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return True


async def _read(
    file: int, options: Options, limit: Limit, watch: Inotify | None, ended: asyncio.Event
) -> AsyncIterator[bytes]:
    data = bytearray()
    while not limit.reached:
        over = ended.is_set()  # before the read: what it wrote last is in the file then
        block = os.read(file, BLOCK)
        if block:
            data += block
            text = limit.take(b"".join(render(line, options) for line in _lines(data)))
            if text:
                yield text
            await asyncio.sleep(0)
        elif watch is None or over or _left_behind(file):
            return
        else:
            await _either(watch, ended)


def _left_behind(file: int) -> bool:
    """Whether there is a newer file, and nothing more in this one."""
    return os.fstat(file).st_nlink == 0 and not os.pread(file, 1, os.lseek(file, 0, os.SEEK_CUR))


async def _either(watch: Inotify, ended: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(watch.read()), asyncio.ensure_future(ended.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
