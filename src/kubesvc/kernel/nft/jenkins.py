"""The kernel's jhash (linux/jhash.h, Bob Jenkins' lookup3), and how `nft` brings it into a range."""

from __future__ import annotations

from struct import unpack

_ALL = 0xFFFFFFFF
_START = 0xDEADBEEF


def _rotated(value: int, by: int) -> int:
    return (value << by | value >> 32 - by) & _ALL


def jhash(data: bytes, seed: int) -> int:
    """32 bits, on a little-endian machine."""
    a = b = c = _START + len(data) + seed & _ALL
    padded = data + bytes(-len(data) % 12)
    words = unpack(f"<{len(padded) // 4}I", padded)
    for start in range(0, len(words), 3):
        a, b, c = a + words[start] & _ALL, b + words[start + 1] & _ALL, c + words[start + 2] & _ALL
        if start + 3 < len(words):
            a, b, c = _mixed(a, b, c)
    return _ended(a, b, c) if data else c


def scale(value: int, modulus: int) -> int:
    """A 32-bit number as one below `modulus`, in proportion (reciprocal_scale)."""
    return value * modulus >> 32


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by in (4, 6, 8, 16, 19, 4):
        a = (a - c & _ALL) ^ _rotated(c, by)
        c = c + b & _ALL
        a, b, c = b, c, a
    return a, b, c


def _ended(a: int, b: int, c: int) -> int:
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _rotated(b, by) & _ALL
        a, b, c = b, c, a
    return b
