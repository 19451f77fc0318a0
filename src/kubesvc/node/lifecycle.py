"""What should happen to a pod's containers next: which to start now, which wait, until when. Pure.

Init containers run one after the other, each to success; an init container with restartPolicy Always is a sidecar: it
only has to have started. Then all containers run at once. What ended is started again as restartPolicy says: the first
time at once, then after 10 s, 20 s, … 5 min (upstream's back-off; ten quiet minutes forget it).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec
from msgspec.structs import replace

from kubesvc.api.pods import Container, PodSpec

FIRST_DELAY, MAX_DELAY = 10.0, 300.0  # seconds


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


class Exit(msgspec.Struct, frozen=True):
    """How an attempt ended. Times are seconds since the epoch; `started_at` 0: it never ran."""

    code: int
    reason: str
    finished_at: float
    started_at: float = 0.0
    message: str = ""
    id: str = ""


class Backoff(msgspec.Struct, frozen=True):
    """`delay` seconds have to pass after an exit; 0: none yet. `since`: when the delay was last set."""

    delay: float = 0.0
    since: float = 0.0

    def after(self, finished: float) -> float:
        """When an attempt that ended at `finished` may be followed by the next."""
        return finished if self._forgotten(finished) else finished + self.delay

    def next(self, now: float) -> Backoff:
        """The back-off once it has been started again at `now`."""
        delay = FIRST_DELAY if self._forgotten(now) else min(self.delay * 2, MAX_DELAY)
        return Backoff(delay, now)

    def _forgotten(self, now: float) -> bool:
        return self.delay == 0 or now - self.since > 2 * MAX_DELAY


class View(msgspec.Struct, frozen=True):
    """One container as the agent knows it. `exit` is set while TERMINATED, and while it waits to be started again;
    `last` is the exit before the current attempt."""

    name: str
    state: State = State.WAITING
    id: str = ""
    image: str = ""  # where it came from, as a status names it
    attempt: int = 0
    started_at: float = 0.0
    exit: Exit | None = None
    last: Exit | None = None
    reason: str = "ContainerCreating"  # of WAITING
    message: str = ""
    started: bool = False  # its startup probe has succeeded (or there is none)
    ready: bool = False
    backoff: Backoff = msgspec.field(default_factory=Backoff)
    retry_at: float = 0.0  # a start that failed for want of something isn't tried again before

    @property
    def running(self) -> bool:
        return self.state is State.RUNNING

    @property
    def succeeded(self) -> bool:
        return self.exit is not None and self.exit.code == 0

    def waiting(self, reason: str, message: str = "", *, retry_at: float = 0.0) -> View:
        return replace(self, state=State.WAITING, reason=reason, message=message, ready=False, retry_at=retry_at)

    def ended(self, exit_: Exit) -> View:
        return replace(self, state=State.TERMINATED, exit=exit_, started=False, ready=False)


class Plan(msgspec.Struct, frozen=True):
    """`start` now; `backing_off` maps the name of what waits -> its delay in seconds; look again at `wake`."""

    start: tuple[str, ...] = ()
    backing_off: Mapping[str, float] = {}
    wake: float | None = None
    finished: bool = False  # nothing will ever run again: the pod has succeeded or failed


class _Planner:
    def __init__(self, views: Mapping[str, View], now: float) -> None:
        self.views, self.now = views, now
        self.start: list[str] = []
        self.backing_off: dict[str, float] = {}
        self.wake: float | None = None

    def consider(self, name: str, policy: str) -> bool:
        """Plan a container that may have to be started; False when it has ended for good."""
        view = self.views[name]
        if view.running:
            return True
        due = view.retry_at
        if view.exit is not None:
            if policy == "Never" or (policy == "OnFailure" and view.succeeded):
                return False
            due = max(due, view.backoff.after(view.exit.finished_at))
            if due > self.now:
                self.backing_off[name] = view.backoff.delay
        if due <= self.now:
            self.start.append(name)
        else:
            self.wake = due if self.wake is None else min(self.wake, due)
        return True

    def plan(self, finished: bool = False) -> Plan:
        return Plan(tuple(self.start), self.backing_off, self.wake, finished)


def is_sidecar(container: Container) -> bool:
    return container.restart_policy == "Always"


def plan(spec: PodSpec, views: Mapping[str, View], now: float) -> Plan:
    """The next step. `views` has one entry for every container, init and ephemeral ones included."""
    planner = _Planner(views, now)
    for container in spec.ephemeral_containers:  # whatever the others do, and once
        planner.consider(container.name, "Never")
    for container in spec.init_containers:
        view = views[container.name]
        if is_sidecar(container):
            planner.consider(container.name, "Always")
            if view.attempt == 0 and not (view.running and view.started):
                return planner.plan()
        elif not view.succeeded:
            policy = "OnFailure" if spec.restart_policy == "Always" else spec.restart_policy
            return planner.plan(finished=not planner.consider(container.name, policy))
    alive = [planner.consider(container.name, spec.restart_policy) for container in spec.containers]
    return planner.plan(finished=not any(alive))
