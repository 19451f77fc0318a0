"""How long a process that ended waits before it is started again. Pure.

One that ends by itself, again and again, waits twice as long each time: what made it end is still there. One that was
killed by another's hand is wanted back soon: it waits at most LAST_KILLED, which still bounds a loop of kills for want
of memory. One that had run for STEADY begins anew.
"""

from __future__ import annotations

import msgspec

FIRST = 0.1  # seconds before the first restart
LAST, LAST_KILLED = 30.0, 1.0
STEADY = 10.0  # seconds after which a process counts as healthy again
KILLING = frozenset((1, 2, 9, 15))  # SIGHUP, SIGINT, SIGKILL, SIGTERM: nothing raises them against itself


class Backoff(msgspec.Struct, frozen=True):
    """Ends in a row, each after less than STEADY: by itself, and by another's hand."""

    failures: int = 0
    kills: int = 0

    def after(self, code: int, lived: float) -> Backoff:
        """Once it has ended after `lived` seconds: `code` is an exit code, or a signal's number negated."""
        before = Backoff() if lived > STEADY else self
        if -code in KILLING:
            return Backoff(before.failures, before.kills + 1)
        return Backoff(before.failures + 1, 0)

    @property
    def delay(self) -> float:
        """Seconds until the next start."""
        if self.kills:
            return min(FIRST * 2.0 ** min(self.kills - 1, 16), LAST_KILLED)
        return min(FIRST * 2.0 ** min(max(0, self.failures - 1), 16), LAST)
