"""A program on a terminal of its own, as a person at a keyboard has it: type, read, change the window's size."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

PATIENCE = 60.0


class Terminal:
    def __init__(self, command: Sequence[str], env: Mapping[str, str], rows: int = 30, columns: int = 100) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self._process = subprocess.Popen(
            list(command), env={**env, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave, preexec_fn=_control
        )
        os.close(slave)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        """The kernel tells the program, by SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str) -> str:
        """Read until `text` has been shown; returns what came up to it, and forgets that."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} was never shown; there is {self.seen!r}"
            if not self._read(left):
                break
        before, found, self.seen = self.seen.partition(text)
        assert found, f"{text!r} was never shown; it ended with {before!r}"
        return before

    def wait(self) -> int:
        """The exit status, once the program has ended; what it printed last is in `seen`."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other side any more
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


def _control() -> None:
    """Make the terminal the controlling one of a session of its own, so that signals come."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
