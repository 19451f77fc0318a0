"""One process at a time."""

from __future__ import annotations

import threading
from pathlib import Path

from kubesvc.kernel import turns


def test_one_at_a_time_is_alone_in_a_directory(tmp_path: Path) -> None:
    """Another waits until it has left, and nothing stays behind."""
    seen: list[bool] = []

    def other() -> None:
        with turns.alone(tmp_path):
            seen.append(left)

    left = False
    with turns.alone(tmp_path):
        waiting = threading.Thread(target=other)
        waiting.start()
        waiting.join(0.2)  # it has no way to say that it waits
        assert seen == []
        left = True
    waiting.join(60)
    assert seen == [True]
    assert list(tmp_path.iterdir()) == []
