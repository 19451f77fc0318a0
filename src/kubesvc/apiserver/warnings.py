"""Warnings to the client of the request at hand, sent as `Warning: 299 - "…"` headers (RFC 7234), which kubectl prints.

Any code a verb calls may warn; the chain collects what the request gave rise to.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar, Token
from functools import lru_cache

_collected: ContextVar[list[str] | None] = ContextVar("warnings", default=None)

_MOST = 4096  # bytes in all: more than this and clients refuse the answer's headers
_MOST_TEXTS = 512  # which is more than _MOST has room for


class Collecting:
    """`with Collecting() as texts`: the list that `warn` fills while this request is answered."""

    __slots__ = ("_texts", "_token")

    def __enter__(self) -> list[str]:
        self._texts: list[str] = []
        self._token: Token[list[str] | None] = _collected.set(self._texts)
        return self._texts

    def __exit__(self, *_: object) -> None:
        _collected.reset(self._token)


def warn(texts: Iterable[str]) -> None:
    collected = _collected.get()
    if collected is None:
        return
    for text in texts:
        if len(collected) >= _MOST_TEXTS:
            return
        if text not in collected:
            collected.append(text)


def header(texts: Iterable[str]) -> str:
    """The value of the Warning header: several are joined by commas."""
    values: list[str] = []
    size = 0
    for text in texts:
        value = _quoted(text)
        size += len(value) + 2
        if size > _MOST:
            break
        values.append(value)
    return ", ".join(values)


@lru_cache(maxsize=256)  # the same few are said again and again
def _quoted(text: str) -> str:
    plain = "".join(c if c.isprintable() and c.isascii() else " " for c in text)
    return '299 - "{}"'.format(plain.replace("\\", "\\\\").replace('"', '\\"'))
