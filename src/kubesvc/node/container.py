"""One container of a pod: its attempts (attempt.py), one after the other, with hooks and probes; pod.py says when."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kubesvc.api.pods import Container, ContainerStatus, Pod
from kubesvc.node import bundles, hooks, resources, security, spec
from kubesvc.node.attempt import Attempt, latest
from kubesvc.node.bundles import Surroundings
from kubesvc.node.config import PodPaths
from kubesvc.node.environment import ConfigError
from kubesvc.node.grace import Grace
from kubesvc.node.images.image import Image
from kubesvc.node.images.volumes import ImageVolumes
from kubesvc.node.images.wanted import NotYet, WantedImage
from kubesvc.node.lifecycle import Backoff, State, View
from kubesvc.node.machine import Machine
from kubesvc.node.prober import Prober
from kubesvc.node.probes import Progress, Role
from kubesvc.node.records import ContainerRecord
from kubesvc.node.runtime import Finished, RuntimeFailure

log = logging.getLogger(__name__)

START_FAILED = 128  # the exit code upstream shows for a program that could not be executed
MIN_GRACE = 2.0  # seconds before SIGKILL, however long a preStop hook or other containers took, as upstream


class ContainerRunner:
    """`view` is what is known now; `changed` is called, synchronously, whenever it has become another."""

    def __init__(self, machine: Machine, pod: Pod, container: Container, paths: PodPaths, changed: Callable[[], None]):
        self.container = container
        self.view = View(container.name)
        self.ended = asyncio.Event()  # nothing of this container runs
        self.ended.set()
        self._machine, self._pod, self._paths, self._changed = machine, pod, paths, changed
        self._attempt: Attempt | None = None
        self._prober: Prober | None = None
        self._image = WantedImage(machine.images, self._event, self._image_changed)
        self._image_volumes = ImageVolumes(machine.images, paths, self._event, self._image_changed)
        self._address = ""  # where hooks and probes ask
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0  # starts in a row that failed for want of something
        self._grace: Grace | None = None  # of a stop under way

    def _set(self, view: View) -> None:
        if view != self.view:
            self.view = view
            self._changed()

    def count_from(self, attempt: int) -> None:
        """The containers of this pod ran before, on a node that lost them: the next attempt is number `attempt`."""
        self.view = replace(self.view, attempt=attempt)

    async def settled(self) -> None:
        """Wait until what follows the end of a container has been done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def wanted(self, container: Container, grace: float) -> None:
        """What the pod's spec says by now: another image ends what runs of this one, within `grace` seconds."""
        self.retry()
        if self.view.running and container.image != self.container.image and self._grace is None:
            self._spawn(self.stop(grace, f"Container {container.name} definition changed, will be restarted"))

    def retry(self) -> None:
        """Something the start was waiting for may be there now: forget the wait."""
        self.view = replace(self.view, retry_at=0.0)

    # ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, pod: Pod, surroundings: Callable[[Container, Image], Surroundings]) -> None:
        """Run one more attempt. A failure is in the view afterwards, never raised."""
        self._pod, name, now = pod, self.container.name, time.time()
        self.container = next((c for c in pod.spec.every_container if c.name == name), self.container)
        try:
            self._machine.runtime.check()
            image = self._image.obtain(pod, self.container, now)
            self._image_volumes.mount(pod, self.container, now)
            around = surroundings(self.container, image)
            spec.command(self.container, around.environment, image)
            security.keep_from_root(pod, self.container, image)
        except NotYet as wait:
            self._set(self.view.waiting(wait.reason, str(wait), retry_at=wait.retry_at))
            return
        except (ConfigError, RuntimeFailure) as error:
            reason = "CreateContainerConfigError" if isinstance(error, ConfigError) else "CreateContainerError"
            self._wait(reason, str(error), now, first=0.5, longest=10.0)
            return
        if not self._machine.runtime.has_cgroups and (given := resources.limits(self.container.resources)):
            told = f"limits of {' and '.join(given)} are not enforced: this node has no control groups to write to"
            self._event("LimitsNotEnforced", told, warning=True)
        waiting = self._next(now, image)
        attempt = self._attempt
        assert attempt is not None
        try:
            async with self._machine.creating:
                await attempt.create(pod, around, image)
                self._event("Created", f"Created container: {name}")
                await attempt.start()
        except OSError as error:  # as on a full disk: nothing of it has run
            await attempt.clear_away()
            self._wait("CreateContainerError", str(error), now, first=0.5, longest=10.0)
            return
        except RuntimeFailure as error:
            # An exit like any other, so that back-off and restartPolicy apply.
            self._set(waiting.ended(attempt.failed(START_FAILED, str(error))))
            self._event("Failed", f"Error: {error}", warning=True)
            await attempt.clear_away()
            return
        self._failures = 0
        self._running(replace(waiting, started_at=attempt.record.started_at))
        self._event("Started", f"Started container {name}")
        self._begin(around.address, age=0.0)
        await asyncio.to_thread(bundles.forget_old, self._paths, name, attempt.record.attempt)

    def _next(self, now: float, image: Image) -> View:
        """The attempt after the one before, of `image`, and its view until it runs."""
        view, again = self.view, self.view.exit is not None
        number = view.attempt + 1 if again or view.id else view.attempt
        backoff = view.backoff.next(now) if again else view.backoff
        id_, last = secrets.token_hex(32), view.exit or view.last
        record = ContainerRecord(
            id_, view.name, number, image.shown, image.stop_signal,
            last=last, backoff_delay=backoff.delay, backoff_since=backoff.since,
        )  # fmt: skip
        self._attempt = Attempt(self._machine, self._paths, self.container, record)
        return View(view.name, id=id_, image=image.shown, attempt=number, last=last, backoff=backoff)

    def _running(self, view: View) -> None:
        """The container runs: watch for its end, at once."""
        assert self._attempt is not None
        self.ended = self._attempt.ended  # who waits for the end of the attempt before keeps its own
        plain = self.container
        hook = plain.lifecycle is not None and plain.lifecycle.post_start is not None and not view.started
        started = (view.started or plain.startup_probe is None) and not hook
        ready = (view.ready or plain.readiness_probe is None) and started
        self._set(replace(view, state=State.RUNNING, exit=None, started=started, ready=ready))
        self._spawn(self._watch(self._attempt))

    def _begin(self, address: str, age: float) -> None:
        """After the start, or an adoption: the hook if there is one, then the probes."""
        self._address = address
        hook = self.container.lifecycle.post_start if self.container.lifecycle else None
        if hook is None or self.view.started:
            self._probe(age)
            return

        async def post_start() -> None:
            problem = await hooks.run(hook, self.container, address, self.execute, timeout=600.0)
            if problem:
                self._event("FailedPostStartHook", f"PostStartHook failed: {problem}", warning=True)
                await self.stop(2.0, f"FailedPostStartHook: container {self.container.name} will be restarted")
                return
            started = self.container.startup_probe is None
            self._set(replace(self.view, started=started, ready=started and self.container.readiness_probe is None))
            self._probe(age)

        self._spawn(post_start())

    # ── what goes wrong before it runs ───────────────────────────────────────────────────────────────────────────────

    def _wait(self, reason: str, message: str, now: float, *, first: float, longest: float) -> None:
        delay = min(first * 2.0 ** min(self._failures, 20), longest)
        self._failures += 1
        self._set(self.view.waiting(reason, message, retry_at=now + delay))
        self._event("Failed", f"Error: {message}", warning=True)

    def _image_changed(self) -> None:
        """A pull has ended, well or not."""
        self.retry()
        self._changed()

    # ── the end of an attempt ────────────────────────────────────────────────────────────────────────────────────────

    async def _watch(self, attempt: Attempt) -> None:
        exit_ = await attempt.finish()
        if self._prober is not None:
            self._prober.stop()
        self._set(self.view.ended(exit_))
        attempt.ended.set()
        await attempt.clear_away()

    async def stop(self, grace: float, why: str) -> None:
        """preStop, SIGTERM, SIGKILL after `grace` seconds. Returns when it has ended. A second call can only hurry."""
        attempt, ended = self._attempt, self.ended
        if attempt is None or ended.is_set():
            return
        if self._grace is not None:
            self._grace.hurry(grace)
            await ended.wait()
            return
        self._grace = Grace(grace)
        self._event("Killing", why)
        try:
            pre_stop = self.container.lifecycle.pre_stop if self.container.lifecycle else None
            if pre_stop is not None and grace > 0:
                await self._pre_stop(
                    self._grace, hooks.run(pre_stop, self.container, self._address, self.execute, grace)
                )
            attempt.signal(attempt.stop_signal)
            if not await self._grace.wait(ended):
                attempt.signal(signal.SIGKILL)
            await ended.wait()
        finally:
            self._grace = None

    async def _pre_stop(self, grace: Grace, hook: Coroutine[Any, Any, str]) -> None:
        """The hook, for as long as there is time and something to stop."""
        task = asyncio.ensure_future(hook)
        over = asyncio.Event()
        task.add_done_callback(lambda _: over.set())
        ended = asyncio.ensure_future(self.ended.wait())
        ended.add_done_callback(lambda _: over.set())
        try:
            await grace.wait(over)
        finally:
            ended.cancel()
            task.cancel()
            await asyncio.gather(task, ended, return_exceptions=True)
        problem = "" if self.ended.is_set() else "the grace period ran out" if task.cancelled() else task.result()
        if problem:
            self._event("FailedPreStopHook", f"PreStopHook failed: {problem}", warning=True)
        grace.at_least(MIN_GRACE)

    def hurry(self, grace: float) -> None:
        """Shorten a stop under way to `grace` seconds from now."""
        if self._grace is not None:
            self._grace.hurry(grace)

    def quiet(self) -> None:
        """The pod is going: no more liveness or startup probes; readiness goes on, as upstream."""
        if self._prober is not None:
            self._prober.stop(keep_readiness=True)

    def leave(self) -> None:
        """The agent stops: let go without ending anything."""
        self._image.leave()
        self._image_volumes.leave()
        if self._prober is not None:
            self._prober.stop()
        for task in self._tasks:
            task.cancel()
        if self._attempt is not None:
            self._attempt.let_go()

    # ── probes ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _probe(self, age: float) -> None:
        self._prober = Prober(self.container, self._address, self.execute, self._probed, self._complained)
        self._prober.start(started=self.view.started, ready=self.view.ready, age=age)

    def _probed(self, progress: Progress, grace: int | None) -> None:
        """`grace`: the probe's own terminationGracePeriodSeconds."""
        if not self.view.running:
            return
        match progress.role:
            case Role.STARTUP if progress.passing:
                self._set(replace(self.view, started=True, ready=self.container.readiness_probe is None))
            case Role.READINESS:
                self._set(replace(self.view, ready=progress.passing))
            case _ if self._grace is None:
                role = progress.role.value.lower()
                why = f"Container {self.container.name} failed {role} probe, will be restarted"
                seconds = self._pod.spec.termination_grace_period_seconds if grace is None else grace
                self._spawn(self.stop(float(seconds), why))

    def _complained(self, role: Role, message: str) -> None:
        self._event("Unhealthy", f"{role.value} probe failed: {message}", warning=True)

    async def execute(self, command: Sequence[str], timeout: float | None) -> Finished:
        """A command in what runs now. Raises TimeoutError, RuntimeFailure, OSError."""
        if self._attempt is None:
            raise RuntimeFailure(f"container {self.container.name} doesn't run")
        return await self._attempt.execute(command, timeout)

    @property
    def processes(self) -> Path | None:
        """The PID namespace of what runs now."""
        if self._attempt is None or not self.view.running:
            return None
        return Path(f"/proc/{self._attempt.record.pid}/ns/pid")

    # ── adoption ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def adopt(self, address: str, known: ContainerStatus | None) -> bool:
        """Find what an earlier agent left of this container. `known`: its status in the API. False: nothing."""
        record = latest(self._paths, self.container.name)
        if record is None:
            return False
        attempt = self._attempt = Attempt(self._machine, self._paths, self.container, record)
        backoff = Backoff(record.backoff_delay, record.backoff_since)
        view = View(
            record.name, id=record.id, image=record.image, attempt=record.attempt, last=record.last, backoff=backoff
        )
        if record.exit is not None:
            self.view = replace(view, started_at=record.started_at).ended(record.exit)
            return True
        try:
            await attempt.start()
        except (ProcessLookupError, RuntimeFailure):
            # The agent before may have been killed while it created this one.
            self.view = replace(view, started_at=record.started_at).ended(attempt.lost())
            self._spawn(attempt.clear_away(monitor=True))
            return True
        view = replace(view, started_at=attempt.record.started_at)
        if known is not None and known.container_id.endswith(record.id):
            view = replace(view, started=bool(known.started), ready=known.ready)
        self._running(view)
        self._begin(address, age=max(0.001, time.time() - view.started_at))
        return True

    # ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._machine.tell(self._pod, reason, message, container=self.container.name, warning=warning)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod %s/%s, container %s: %s", *self._pod.key, self.container.name, error, exc_info=error)
