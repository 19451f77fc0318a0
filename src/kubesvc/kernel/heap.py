"""Memory that this process has freed and still holds."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return what the C library keeps for later to the kernel. Does nothing where the library has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
