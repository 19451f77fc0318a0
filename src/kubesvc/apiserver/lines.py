"""Encoded watch events and decoded objects, each made once and shared by all watchers that need the same one.

Two bounded caches: the newest events are what everybody is about to read, and everybody reads them soon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from kubesvc.api.meta import JSON
from kubesvc.apiserver import stored
from kubesvc.apiserver.negotiation import Representation

K = TypeVar("K")
V = TypeVar("V")

KEPT = 4096


class Recent(Generic[K, V]):
    """The newest `size` values made."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._made: dict[K, V] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = make()
            if len(self._made) > self._size:
                del self._made[next(iter(self._made))]
        return found


class Lines:
    def __init__(self) -> None:
        self._lines: Recent[tuple[str, int, str, Representation], bytes] = Recent(KEPT)
        self._trees: Recent[tuple[str, int], JSON] = Recent(KEPT)

    def line(self, key: str, revision: int, type: str, form: Representation, make: Callable[[], bytes]) -> bytes:
        """The line of one event in one representation; `make` is called the first time."""
        return self._lines.get((key, revision, type, form), make)

    def tree(self, key: str, value: bytes, revision: int) -> JSON:
        """The decoded object of one revision, to look at and not to change."""
        return self._trees.get((key, revision), lambda: stored.decode(value, revision))
