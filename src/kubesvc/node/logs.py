"""Reading a container's log: CRI lines from conmon, as plain text, to the end or as they come.

    2016-10-06T00:17:09.669794202+00:00 stdout F a whole line
    2016-10-06T00:17:09.669794203+00:00 stdout P the beginning of a long one, to be joined with what follows

Parsing and selection are pure; `follow` waits with inotify and never polls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from kubesvc.kernel.inotify import IN_ATTRIB, IN_MODIFY, IN_MOVED_TO, Inotify

BLOCK = 1 << 16


class Options(msgspec.Struct, frozen=True):
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


def rotated(path: Path) -> list[Path]:
    """What came before the log at `path`, the oldest first: 0.log.20261122-100000.000000 (see rotation.py)."""
    return sorted(path.parent.glob(f"{path.name}.[0-9]*"))


def is_there(path: Path) -> bool:
    """Whether there is anything to read. Between a rotation and conmon's next file nothing has the log's own name."""
    return path.exists() or bool(rotated(path))


def _open(path: Path) -> int:
    """The log, or what was put aside last while there is no next one yet. Raises FileNotFoundError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        older = rotated(path)
        return os.open(older[-1] if older else path, os.O_RDONLY | os.O_CLOEXEC)


def tail_offset(file: int, lines: int) -> int:
    """Where the last `lines` lines of an open file begin."""
    return _tail(file, lines)[0]


def _tail(file: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines of an open file begin, and how many of them it doesn't have."""
    position = os.fstat(file).st_size
    if lines <= 0:
        return position, 0
    seen = 0
    while position > 0:
        start = max(0, position - BLOCK)
        block = os.pread(file, position - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if seen == lines:
                return start + at + 1, 0
            seen += 1
        position = start
    return 0, lines - seen


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
    """The log's text in pieces, with what was rotated away before it. With `follow`, goes on until `ended` is set and
    everything has been read, through whatever takes the log's place.

    Raises FileNotFoundError when there is no log.
    """
    watch = Inotify() if options.follow else None
    limit = Limit(options.limit)
    files: list[int] = []
    try:
        if watch is not None:
            watch.add(path.parent, IN_MOVED_TO)  # a new file under the log's name
        files, offset = _opened(path, options.tail)
        if watch is not None:
            _watch(watch, files[-1])
        os.lseek(files[0], offset, os.SEEK_SET)
        for file in files[:-1]:
            async for piece in _read(path, file, options, limit, None, ended):
                yield piece
        while True:
            async for piece in _read(path, files[-1], options, limit, watch, ended):
                yield piece
            after = None if watch is None or limit.reached else _after(path, files[-1])
            if watch is None or after is None:
                return
            file = os.open(after, os.O_RDONLY | os.O_CLOEXEC)
            os.close(files.pop())
            files.append(file)
            _watch(watch, file)
    finally:
        for file in files:
            os.close(file)
        if watch is not None:
            watch.close()


def _watch(watch: Inotify, file: int) -> None:
    watch.add(Path(f"/proc/self/fd/{file}"), IN_MODIFY | IN_ATTRIB)  # this file, whatever has the name by now


def _opened(path: Path, tail: int | None) -> tuple[list[int], int]:
    """The files to read, in order, and where to begin in the first."""
    files = [_open(path)]
    try:
        offset, missing = (0, 1) if tail is None else _tail(files[0], tail)
        for older in reversed(rotated(path)):
            if missing <= 0:
                break
            try:
                file = os.open(older, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # it has just become one too many
                break
            if os.path.samestat(os.fstat(file), os.fstat(files[0])):  # rotated since it was opened
                os.close(file)
                continue
            files.insert(0, file)
            if tail is not None:
                offset, missing = _tail(file, missing)
        return files, offset
    except BaseException:
        for file in files:
            os.close(file)
        raise


def _after(path: Path, file: int) -> Path | None:
    """The file that took the place of `file`, None while none has."""
    own = os.fstat(file)
    try:
        if os.path.samestat(path.stat(), own):
            return None
    except FileNotFoundError:  # rotated away, and conmon hasn't begun the next one yet
        return None
    older = rotated(path)
    for which, candidate in enumerate(older):
        with suppress(FileNotFoundError):
            if os.path.samestat(candidate.stat(), own):
                return (*older, path)[which + 1]
    return path


async def _read(
    path: Path, file: int, options: Options, limit: Limit, watch: Inotify | None, ended: asyncio.Event
) -> AsyncIterator[bytes]:
    """One file to its end; with `watch`, until another took its place or the container has ended."""
    data = bytearray()
    while not limit.reached:
        over = ended.is_set()  # before the read: what it wrote last is in the file then
        left = watch is not None and _after(path, file) is not None  # likewise
        block = os.read(file, BLOCK)
        if block:
            data += block
            text = limit.take(b"".join(render(line, options) for line in _lines(data)))
            if text:
                yield text
            await asyncio.sleep(0)
        elif watch is None or over or left:
            return
        else:
            await _either(watch, ended)


async def _either(watch: Inotify, ended: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(watch.read()), asyncio.ensure_future(ended.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
