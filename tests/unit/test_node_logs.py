"""Following a log while it grows, when it is begun anew, and to the end of its container."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from kubesvc.node.logs import Options, is_there, read

DEADLINE = 60.0


def line(second: int, text: str, tag: str = "F") -> str:
    return f"2026-11-22T10:00:{second:02}.000000000+00:00 stdout {tag} {text}\n"


async def all_of(path: Path, options: Options) -> str:
    ended = asyncio.Event()
    return b"".join([piece async for piece in read(path, options, ended)]).decode()


async def test_a_followed_log_goes_on_in_the_file_that_takes_its_place(tmp_path: Path) -> None:
    """What conmon does at its size limit: a new file under the old name."""
    path, ended = tmp_path / "0.log", asyncio.Event()
    path.write_text(line(1, "old"))
    follower = read(path, Options(follow=True, tail=1), ended)

    async def next_piece() -> bytes:
        return await asyncio.wait_for(anext(follower), DEADLINE)

    assert await next_piece() == b"old\n"
    with path.open("a") as file:
        file.write(line(2, "more"))
    assert await next_piece() == b"more\n"
    fresh = tmp_path / "fresh"
    fresh.write_text(line(3, "new"))
    fresh.rename(path)
    assert await next_piece() == b"new\n"
    with path.open("a") as file:
        file.write(line(4, "last"))
    ended.set()
    assert await next_piece() == b"last\n"
    assert [piece async for piece in follower] == []


async def test_options_together(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(line(second, f"line {second}") for second in range(10)))
    since = datetime(2026, 11, 22, 10, 0, 7, tzinfo=UTC)
    assert await all_of(path, Options(since=since)) == "line 7\nline 8\nline 9\n"
    assert await all_of(path, Options(since=since, tail=2)) == "line 8\nline 9\n"
    assert await all_of(path, Options(since=since, tail=5)) == "line 7\nline 8\nline 9\n"
    assert await all_of(path, Options(tail=0)) == ""
    assert await all_of(path, Options(tail=2, limit=9)) == "line 8\nli"


async def test_a_long_line_comes_whole(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(line(1, "begins, ", "P") + line(1, "goes on, ", "P") + line(1, "ends"))
    assert await all_of(path, Options()) == "begins, goes on, ends\n"


async def test_what_was_put_aside_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    (tmp_path / "0.log.20261122-100000.000000").write_text(line(0, "line 0") + line(1, "line 1"))
    (tmp_path / "0.log.20261122-100002.000000").write_text(line(2, "line 2") + line(3, "li", "P"))
    path.write_text(line(3, "ne 3") + line(4, "line 4"))
    whole = "".join(f"line {number}\n" for number in range(5))
    assert await all_of(path, Options()) == whole
    assert await all_of(path, Options(limit=10)) == whole[:10]
    assert await all_of(path, Options(tail=1)) == "line 4\n"
    assert await all_of(path, Options(tail=2)) == "ne 3\nline 4\n"
    assert await all_of(path, Options(tail=5)) == "line 1\nline 2\nline 3\nline 4\n"  # a line in two is two
    assert await all_of(path, Options(tail=100)) == whole
    since = datetime(2026, 11, 22, 10, 0, 2, tzinfo=UTC)
    assert await all_of(path, Options(since=since)) == "line 2\nline 3\nline 4\n"


async def test_a_follower_reads_every_log_that_was_put_aside_meanwhile(tmp_path: Path) -> None:
    path, ended = tmp_path / "0.log", asyncio.Event()
    path.write_text(line(1, "one"))
    follower = read(path, Options(follow=True), ended)
    pieces = [await asyncio.wait_for(anext(follower), DEADLINE)]
    path.rename(tmp_path / "0.log.20261122-100001.000000")
    (tmp_path / "0.log.20261122-100002.000000").write_text(line(2, "two"))
    fresh = tmp_path / "0.log.tmp"
    fresh.write_text(line(3, "three"))
    fresh.rename(path)
    pieces += [await asyncio.wait_for(anext(follower), DEADLINE) for _ in range(2)]
    ended.set()
    pieces += [piece async for piece in follower]
    assert pieces == [b"one\n", b"two\n", b"three\n"]


async def test_a_log_that_was_just_put_aside_is_read_before_there_is_a_next_one(tmp_path: Path) -> None:
    """Conmon begins it a moment after the rename."""
    path, ended = tmp_path / "0.log", asyncio.Event()
    assert not is_there(path)
    (tmp_path / "0.log.20261122-100001.000000").write_text(line(1, "older"))
    (tmp_path / "0.log.20261122-100002.000000").write_text(line(2, "aside"))
    assert is_there(path)
    assert await all_of(path, Options()) == "older\naside\n"
    assert await all_of(path, Options(tail=1)) == "aside\n"
    follower = read(path, Options(follow=True, tail=1), ended)
    assert await asyncio.wait_for(anext(follower), DEADLINE) == b"aside\n"
    fresh = tmp_path / "fresh"
    fresh.write_text(line(3, "new"))
    fresh.rename(path)
    assert await asyncio.wait_for(anext(follower), DEADLINE) == b"new\n"
    ended.set()
    assert [piece async for piece in follower] == []
