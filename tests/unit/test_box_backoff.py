"""When a process of a box is started again after its end."""

from __future__ import annotations

import signal

import pytest

from kubesvc.box.backoff import Backoff

KILL, SEGV = -signal.SIGKILL, -signal.SIGSEGV


def delays(*ends: tuple[int, float]) -> list[float]:
    backoff, found = Backoff(), []
    for code, lived in ends:
        backoff = backoff.after(code, lived)
        found.append(backoff.delay)
    return found


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(1, 0.0)], [0.1]),
        ([(1, 0.1)] * 5, [0.1, 0.2, 0.4, 0.8, 1.6]),
        ([(SEGV, 0.1)] * 3, [0.1, 0.2, 0.4]),
        ([(1, 0.1)] * 3 + [(1, 11.0)], [0.1, 0.2, 0.4, 0.1]),
        ([(KILL, 0.5)] * 6, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        ([(KILL, 0.5)] * 3 + [(KILL, 11.0)], [0.1, 0.2, 0.4, 0.1]),
        ([(1, 0.1)] * 6 + [(KILL, 5.0)], [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 0.1]),
        ([(1, 0.1), (1, 0.1), (KILL, 5.0), (1, 0.1)], [0.1, 0.2, 0.1, 0.4]),
    ],
    ids=[
        "first end", "a crash loop backs off", "a fault is a crash", "a steady one begins anew",
        "kills in quick succession", "kills far apart", "killed while it recovers",
        "a kill doesn't excuse a crash loop",
    ],
)  # fmt: skip
def test_delay_before_the_next_start(ends, expected):
    assert delays(*ends) == pytest.approx(expected)


def test_a_crash_loop_waits_half_a_minute_at_most():
    assert delays(*[(1, 0.1)] * 40)[-1] == 30.0


def test_kills_never_wait_longer_than_a_second():
    assert max(delays(*[(KILL, 0.1)] * 200)) == 1.0
