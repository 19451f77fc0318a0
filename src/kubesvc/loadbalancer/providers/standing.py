"""What becomes of an annotation that a cloud's own controller knows. Pure."""

from __future__ import annotations

from enum import StrEnum


class Standing(StrEnum):
    SUPPORTED = "supported"
    IGNORED = "ignored"
    """The Service is served, and an event says so."""
    REJECTED = "rejected"
