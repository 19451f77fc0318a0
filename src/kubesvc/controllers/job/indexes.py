"""Completion indexes of an Indexed Job, and how a status spells them: 0-2,5. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from kubesvc.api.labels import JOB_COMPLETION_INDEX
from kubesvc.api.pods import Pod


def index_of(pod: Pod) -> int | None:
    text = pod.metadata.annotations.get(JOB_COMPLETION_INDEX, "")
    return int(text) if text.isdigit() else None


def indexes_of(pods: Iterable[Pod]) -> set[int]:
    return {i for p in pods if (i := index_of(p)) is not None}


def spelled(indexes: Collection[int]) -> str:
    """`{0, 1, 2, 5, 7, 8}` is 0-2,5,7,8: a dash stands for what is left out."""
    return ",".join(f"{a}-{b}" if b > a + 1 else f"{a},{b}" if b > a else str(a) for a, b in _runs(sorted(indexes)))


def read(text: str, completions: int) -> set[int]:
    """The indexes below `completions` that `text` spells; what can't be read is passed over."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first.isdigit() and (last.isdigit() or not dash):
            found.update(range(int(first), min(int(last) if dash else int(first), completions - 1) + 1))
    return found


def _runs(indexes: list[int]) -> Iterator[tuple[int, int]]:
    first = last = -2
    for index in indexes:
        if index == last + 1:
            last = index
            continue
        if first >= 0:
            yield first, last
        first = last = index
    if first >= 0:
        yield first, last
