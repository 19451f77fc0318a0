"""inotify: be told when a file or directory changes, instead of asking again and again. See inotify(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from kubesvc.kernel.descriptors import readable

# linux/inotify.h; IN_ATTRIB also tells that a file lost its name
IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_TO = 0x2, 0x4, 0x8, 0x80
IN_NONBLOCK, IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One inotify instance; `read` waits for changes of what was added."""

    def __init__(self) -> None:
        self._descriptor: int = _libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}; raise fs.inotify.max_user_instances")

    def add(self, path: Path, mask: int) -> None:
        if _libc.inotify_add_watch(self._descriptor, str(path).encode(), mask) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {path}: {os.strerror(number)}")

    def fileno(self) -> int:
        return self._descriptor

    def take(self) -> list[str]:
        """The names (in a watched directory; "" for a watched file) that changed since; empty when none did."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return []
        names, at = [], 0
        while at < len(data):
            (size,) = struct.unpack_from("=12xI", data, at)
            names.append(data[at + 16 : at + 16 + size].rstrip(b"\0").decode())
            at += 16 + size
        return names

    async def read(self) -> list[str]:
        """Wait until something changes; returns what `take` does."""
        await readable(self._descriptor)
        return self.take()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
