"""Which Services select a pod with these labels: exact, without looking at every Service.

A selector is a set of (key, value) pairs and selects the label sets that contain it. So the selectors that select a
pod are among the subsets of its labels; only subset sizes that some selector has are looked up. With 10,000 Services
that is a handful of dict look-ups for a pod change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

Key = tuple[str, str]
Pairs = frozenset[tuple[str, str]]

MANY_LABELS = 12
"""From here on a look-up asks each distinct selector instead of each subset."""


class Selectors:
    """The selectors of one kind of object, by namespace."""

    def __init__(self) -> None:
        self._names: dict[str, dict[Pairs, set[str]]] = {}  # namespace -> selector -> names of those who have it
        self._sizes: dict[str, dict[int, int]] = {}  # namespace -> pairs in a selector -> how many distinct selectors

    def add(self, key: Key, selector: Mapping[str, str]) -> None:
        """An empty selector selects nothing: such a Service is managed by hand."""
        namespace, name = key
        pairs = frozenset(selector.items())
        if not pairs:
            return
        names = self._names.setdefault(namespace, {})
        if pairs not in names:
            names[pairs] = set()
            sizes = self._sizes.setdefault(namespace, {})
            sizes[len(pairs)] = sizes.get(len(pairs), 0) + 1
        names[pairs].add(name)

    def remove(self, key: Key, selector: Mapping[str, str]) -> None:
        namespace, name = key
        pairs = frozenset(selector.items())
        names = self._names.get(namespace, {})
        if name not in names.get(pairs, ()):
            return
        names[pairs].discard(name)
        if not names[pairs]:
            del names[pairs]
            sizes = self._sizes[namespace]
            sizes[len(pairs)] -= 1
            if not sizes[len(pairs)]:
                del sizes[len(pairs)]
        if not names:
            del self._names[namespace], self._sizes[namespace]

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> set[Key]:
        """Keys of those whose selector selects `labels`."""
        names = self._names.get(namespace)
        if not names:
            return set()
        found: set[Key] = set()
        for pairs in self._candidates(namespace, labels):
            found.update((namespace, name) for name in names.get(pairs, ()))
        return found

    def _candidates(self, namespace: str, labels: Mapping[str, str]) -> Iterable[Pairs]:
        if len(labels) >= MANY_LABELS:
            have = labels.items()
            return [pairs for pairs in self._names[namespace] if pairs <= have]
        return [
            frozenset(pairs)
            for size in self._sizes[namespace]
            if size <= len(labels)
            for pairs in combinations(labels.items(), size)
        ]
