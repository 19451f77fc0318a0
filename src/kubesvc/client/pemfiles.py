"""Certificates in files that others replace before they expire: written in one step, and read again when they change.

A process never restarts for a new certificate: connections it has live on, new ones present what is in the file.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks at the files


def write_private(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read, in one step."""
    part = path.with_name(path.name + ".new")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_bytes(data)
    part.replace(path)


class Followed:
    """Some files, and whether they have changed since last asked; they are looked at once a second at most."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._known = self._state()
        self._looked = time.monotonic()

    def _state(self) -> list[tuple[int, int, int]]:
        found = []
        for path in self._paths:
            try:
                stat = path.stat()
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
            except OSError:
                found.append((0, 0, 0))
        return found

    def changed(self) -> bool:
        now = time.monotonic()
        if now - self._looked < LOOK:
            return False
        self._looked = now
        before, self._known = self._known, self._state()
        return before != self._known


async def keep_fresh(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have `context` present what is in the two files, whenever they change; until cancelled.

    A pair that doesn't match, as between the two writes, is left until it does.
    """
    followed, behind = Followed((certificate, key)), False
    with suppress(OSError, ssl.SSLError):
        context.load_cert_chain(certificate, key)  # they may have changed since whoever made `context` read them
    while True:
        await asyncio.sleep(LOOK)
        if followed.changed() or behind:
            try:
                context.load_cert_chain(certificate, key)
                behind = False
                log.info("%s was renewed: new connections get it", certificate)
            except (OSError, ssl.SSLError) as error:
                if not behind:
                    log.warning("%s can't be used: %s; the one before is kept", certificate, error)
                behind = True
