"""A number of pods, or a percentage of them: how maxSurge and maxUnavailable are given. Pure."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor


def share(value: int | str, total: int, up: bool) -> int:
    """A number, or a percentage of `total` rounded up or down."""
    if isinstance(value, str) and value.endswith("%"):
        exact = Fraction(int(value[:-1]) * total, 100)
        return ceil(exact) if up else floor(exact)
    return int(value)
