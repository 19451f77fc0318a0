"""Completion indexes of an Indexed Job, and how a status spells them: 0-2,5. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kubesvc.api.pods import Pod

INDEX = "batch.kubernetes.io/job-completion-index"  # a pod's label and annotation


def index_of(pod: Pod) -> int | None:
    text = pod.metadata.labels.get(INDEX, "")
    return int(text) if text.isdigit() else None


def spelled(indexes: Collection[int]) -> str:
    """`{0, 1, 2, 5}` is 0-2,5."""
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in _runs(sorted(indexes)))


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
