"""The box's certificates, made anew before they expire while everything runs: whoever reads them sees that the files
have changed. The nodes' own client certificates aren't made here: their agents ask for them (node/renewal.py).
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from kubesvc.box.certificates import ensure_certificates
from kubesvc.box.definition import recall
from kubesvc.box.errors import BoxError

log = logging.getLogger(__name__)

_LOOKS = 20  # in a certificate's life
_SELDOM, _OFTEN = 3600.0, 1.0  # seconds


async def rotate(directory: Path, life: float) -> None:
    """See to the certificates of the box in `directory` until cancelled. `life` is theirs, in seconds."""
    while True:
        await asyncio.sleep(max(_OFTEN, min(_SELDOM, life / _LOOKS)))
        try:
            await asyncio.to_thread(_ensure, directory)
        except (OSError, ValueError, BoxError) as error:
            log.error("certificates can't be renewed: %s", error)


def _ensure(directory: Path) -> None:
    box = recall(directory)  # as it is now: nodes come and go
    if box is not None:
        ensure_certificates(box)
