"""How long a Job waits after a failure: ten seconds, doubled with each one since the last success. Pure.

A failed pod may be gone before the wait is over, so its Job's failures are remembered between looks. Upstream begins
anew when its controller does; here the finished pods that are still there are counted again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from kubesvc.api.meta import format_time, parse_time
from kubesvc.api.pods import Pod
from kubesvc.controllers.readiness import condition

FIRST_DELAY, MAX_DELAY = 10.0, 600.0  # seconds
_ENOUGH = 7
"""More failures than these wait no longer."""


class Failures(msgspec.Struct, frozen=True):
    """Since the last `success`: `at` maps the uid of a failed pod -> when it failed."""

    success: str = ""
    at: dict[str, str] = {}

    def wait(self, now: datetime) -> float:
        """Seconds until the next pod may be made."""
        return wait(len(self.at), max(self.at.values(), default=""), now)


NONE = Failures()


def remember(known: Failures, succeeded: Iterable[Pod], failed: Iterable[Pod]) -> Failures:
    success = max((known.success, *map(finished_at, succeeded)))
    at = known.at | {p.metadata.uid: finished_at(p) for p in failed}
    since = sorted((time, uid) for uid, time in at.items() if time > success)
    return Failures(success, {uid: time for time, uid in since[-_ENOUGH:]})


def wait(failures: int, last: str, now: datetime) -> float:
    """Seconds until a pod may be made after so many failures, the last one then."""
    if not failures or not last:
        return 0.0
    delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, _ENOUGH), MAX_DELAY)
    return max(0.0, (parse_time(last) + timedelta(seconds=delay) - now).total_seconds())


def finished_at(pod: Pod) -> str:
    """When its last container ended; if nobody says, when it stopped being ready, was deleted, or was made."""
    times = [s.state.terminated.finished_at for s in pod.status.container_statuses if s.state.terminated]
    if times and all(times):
        return max(t for t in times if t)
    ready = condition(pod.status.conditions, "Ready")
    if ready is not None and ready.status == "False" and ready.last_transition_time:
        return ready.last_transition_time
    meta = pod.metadata
    if meta.deletion_timestamp is not None:
        grace = timedelta(seconds=meta.deletion_grace_period_seconds or 0)
        return format_time(parse_time(meta.deletion_timestamp) - grace)
    return meta.creation_timestamp or ""
