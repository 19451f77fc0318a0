"""Noticing that a container has ended, at once: its process by a pidfd, its exit code by conmon's exit file.

conmon writes the file about a millisecond after the process is gone; on a machine that has no time for it, later. A
conmon that was killed never does; then the code is unknown, and 137 stands for it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from kubesvc.kernel.descriptors import readable
from kubesvc.kernel.inotify import IN_CLOSE_WRITE, IN_MOVED_TO, Inotify
from kubesvc.node import processes

LOST = 137
PATIENCE = 1.0  # seconds for the file after the process; then conmon itself is looked for, so often
MOST_LOOKS = 30


class Exits:
    """The exits directory of one node. `watch` may be called once `open` was."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._inotify: Inotify | None = None
        self._waiting: dict[str, asyncio.Future[int | None]] = {}  # container id -> its code

    def open(self) -> None:
        self._inotify = Inotify()
        self._inotify.add(self._directory, IN_MOVED_TO | IN_CLOSE_WRITE)
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._changed)

    def close(self) -> None:
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def code(self, id_: str) -> int | None:
        """The exit code on disk, None while there is none."""
        try:
            return int((self._directory / id_).read_text())
        except (OSError, ValueError):
            return None

    def finished_at(self, id_: str, default: float) -> float:
        try:
            return (self._directory / id_).stat().st_mtime
        except OSError:
            return default

    async def wait(self, id_: str, pidfd: int) -> int | None:
        """Wait for the end of a container; its exit code, or None when conmon can't tell any more. Closes `pidfd`."""
        loop = asyncio.get_running_loop()
        done = self._waiting[id_] = loop.create_future()
        ended = asyncio.ensure_future(readable(pidfd))
        try:
            if (code := self.code(id_)) is not None:
                return code
            await asyncio.wait((done, ended), return_when=asyncio.FIRST_COMPLETED)
            for _ in range(MOST_LOOKS):
                await asyncio.wait((done,), timeout=PATIENCE)
                if done.done() or not await asyncio.to_thread(_has_conmon, id_):
                    break
            return done.result() if done.done() else self.code(id_)
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            os.close(pidfd)
            self._waiting.pop(id_, None)

    def _changed(self) -> None:
        assert self._inotify is not None
        for name in self._inotify.take():
            future = self._waiting.get(name)
            if future is not None and not future.done() and (code := self.code(name)) is not None:
                future.set_result(code)


def _has_conmon(id_: str) -> bool:
    found = list(processes.with_argument(id_))
    for process in found:
        os.close(process)
    return bool(found)
