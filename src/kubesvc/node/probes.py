"""Probes: when the next attempt is due and what a run of results means. Pure; prober.py does the asking.

Upstream's rules (kubelet prober/worker.go): readiness begins as failure, liveness as success, and a result counts after
successThreshold or failureThreshold equal results in a row. One addition: until a readiness or startup probe has
succeeded once, attempts come sooner than the period, at growing distance, so that a pod is ready as soon as it answers.
Such early failures are not counted and not reported.

    attempt 0        1       2       3 …
            |--first-|--1.5x-|-2.25x-|-- … until the distance is the period
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec
from msgspec.structs import replace

from kubesvc.api.pods import ContainerPort, Probe

FIRST_DELAY = 0.02  # seconds between the first two attempts: a connection costs next to nothing
GROWTH = 1.5
FIRST_EXEC_DELAY = 0.1  # an exec costs a process or three


class Role(Enum):
    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


class Result(msgspec.Struct, frozen=True):
    """One attempt's. `message` is what an Unhealthy event says."""

    success: bool
    message: str = ""


class Progress(msgspec.Struct, frozen=True):
    """What one probe of one run of a container has come to. `passing` is the verdict that counts."""

    role: Role
    passing: bool
    streak: int = 0  # results equal to `last` in a row
    last: bool | None = None
    attempts: int = 0  # early ones, before the first success
    succeeded: bool = False  # at least once


def begin(role: Role, *, passing: bool | None = None) -> Progress:
    """`passing` given: a container that was adopted, and what was known of it."""
    start = (role is Role.LIVENESS) if passing is None else passing
    return Progress(role, start, succeeded=bool(passing))


def _early_delay(probe: Probe, attempts: int) -> float:
    first = FIRST_EXEC_DELAY if probe.exec else FIRST_DELAY
    return first * GROWTH ** min(attempts, 40)


def is_early(progress: Progress, probe: Probe) -> bool:
    """Whether the next attempt comes before its period is over, and so doesn't count when it fails."""
    if progress.role is Role.LIVENESS or progress.succeeded:
        return False
    return _early_delay(probe, progress.attempts) < probe.period_seconds


def observe(progress: Progress, probe: Probe, result: Result) -> Progress:
    """The progress after one more result."""
    if not result.success and is_early(progress, probe):
        return replace(progress, attempts=progress.attempts + 1)
    streak = progress.streak + 1 if progress.last == result.success else 1
    needed = probe.success_threshold if result.success else probe.failure_threshold
    passing = result.success if streak >= needed else progress.passing
    return replace(
        progress,
        passing=passing,
        streak=streak,
        last=result.success,
        succeeded=progress.succeeded or result.success,
    )


def failed(progress: Progress, probe: Probe) -> bool:
    """Whether a startup or liveness probe has failed often enough that the container must be started again."""
    if progress.role is Role.READINESS:
        return False
    return progress.last is False and progress.streak >= probe.failure_threshold


def delay(progress: Progress, probe: Probe) -> float:
    """Seconds until the next attempt."""
    if is_early(progress, probe) and progress.attempts > 0:
        return _early_delay(probe, progress.attempts - 1)
    return float(probe.period_seconds)


def port_number(port: int | str, ports: Sequence[ContainerPort]) -> int:
    """The number of a probe's port, which may be a container port's name. Raises ValueError."""
    if isinstance(port, int):
        return port
    for candidate in ports:
        if candidate.name == port:
            return candidate.container_port
    if port.isdigit():
        return int(port)
    raise ValueError(f"couldn't find port: {port!r}")
