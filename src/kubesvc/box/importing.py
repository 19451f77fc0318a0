"""Importing a command without what imports do and a start doesn't need."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator
from contextlib import contextmanager


def _no_paths(_: ssl.SSLContext) -> None:
    pass


@contextmanager
def quickly() -> Iterator[None]:
    """While modules are imported: no collecting of garbage, of which there is hardly any (a quarter of the time), and
    no reading of the machine's CA certificates (a tenth).

    aiohttp reads them twice, into contexts for requests that bring none. Those trust nobody then: whoever asks servers
    of the world (images/registry.py) brings a context of its own.
    """
    gc.disable()
    ssl.SSLContext.set_default_verify_paths = _no_paths  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # the base class's is underneath
        gc.enable()
