"""Lines in a file that its owner alone can read. At LIMIT it becomes FILE.1, that one FILE.2, and so on."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

LIMIT = 100 << 20  # bytes
KEPT = 10  # older files
_COMPLAIN = 60.0  # seconds between two lines in our own log about a file that can't be written


class AuditFile:
    def __init__(self, path: Path, limit: int = LIMIT, kept: int = KEPT) -> None:
        """Raises OSError."""
        self._path, self._limit, self._kept = path, limit, kept
        self._descriptor, self._size = -1, 0
        self._complained = 0.0
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(self._descriptor, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, line: bytes) -> None:
        """One line, its end included. A disk that is full loses lines, and says so in the log: requests go on."""
        try:
            if self._size and self._size + len(line) > self._limit:
                self._rotate()
            if self._descriptor < 0:
                self._open()
            self._size += os.write(self._descriptor, line)
        except OSError as error:
            if time.monotonic() - self._complained > _COMPLAIN or not self._complained:
                self._complained = time.monotonic()
                log.error("the audit log %s can't be written: %s", self._path, error)

    def _rotate(self) -> None:
        self.close()
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
