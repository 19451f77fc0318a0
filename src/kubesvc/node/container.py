"""One container of a pod: its attempts, one after the other. It starts, adopts, probes and stops; pod.py says when.

Every attempt has a bundle directory with its record, so that an agent started later goes on where this one was killed:

    recorded ──► created (pid) ──► started ──► ended (exit code)
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec

from kubesvc.api.core import Container, ContainerStatus, Pod
from kubesvc.node import bundles, images, processes, records, spec, termination
from kubesvc.node.bundles import Surroundings
from kubesvc.node.config import PodPaths
from kubesvc.node.environment import ConfigError
from kubesvc.node.exits import LOST
from kubesvc.node.images import ImageError
from kubesvc.node.lifecycle import Backoff, Exit, State, View
from kubesvc.node.machine import Machine
from kubesvc.node.prober import Prober, run_hook
from kubesvc.node.probes import Progress, Role
from kubesvc.node.records import ContainerRecord
from kubesvc.node.runtime import Finished, RuntimeFailure

log = logging.getLogger(__name__)

START_FAILED = 128  # the exit code upstream shows for a program that could not be executed
MIN_GRACE = 2.0  # seconds between a long preStop and SIGKILL, as upstream


class ContainerRunner:
    """`view` is what is known now; `changed` is called, synchronously, whenever it has become another."""

    def __init__(self, machine: Machine, pod: Pod, container: Container, paths: PodPaths, changed: Callable[[], None]):
        self.container = container
        self.view = View(container.name)
        self.ended = asyncio.Event()  # nothing of this container runs
        self.ended.set()
        self._machine, self._pod, self._paths, self._changed = machine, pod, paths, changed
        self._record: ContainerRecord | None = None
        self._prober: Prober | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._process = -1  # a pidfd while it runs
        self._failures = 0  # starts in a row that failed for want of something
        self._deadline = 0.0  # of a stop under way, on the loop's clock
        self._hurry = asyncio.Event()

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

    def retry(self) -> None:
        """Something the start was waiting for may be there now: forget the wait."""
        self.view = replace(self.view, retry_at=0.0)

    # ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, pod: Pod, surroundings: Callable[[Container], Surroundings]) -> None:
        """Run one more attempt. A failure is in the view afterwards, never raised."""
        self._pod, name, now = pod, self.container.name, time.time()
        self.container = next(
            (c for c in (*pod.spec.init_containers, *pod.spec.containers) if c.name == name), self.container
        )
        again = self.view.exit is not None
        try:
            images.resolve(self.container.image)
            self._machine.runtime.check()
            around = surroundings(self.container)
            spec.command(self.container, around.environment)
        except ImageError as error:
            self._image_missing(str(error), now)
            return
        except (ConfigError, RuntimeFailure) as error:
            reason = "CreateContainerConfigError" if isinstance(error, ConfigError) else "CreateContainerError"
            self._wait(reason, str(error), now, first=0.5, longest=10.0)
            return
        self._failures = 0
        attempt = self.view.attempt + 1 if again or self.view.id else self.view.attempt
        backoff = self.view.backoff.next(now) if again else self.view.backoff
        last = self.view.exit or self.view.last
        id_ = secrets.token_hex(32)
        self._event("Pulled", f'Container image "{self.container.image}" already present on machine')
        self._record = ContainerRecord(
            id_, name, attempt, last=last, backoff_delay=backoff.delay, backoff_since=backoff.since
        )
        waiting = View(name, id=id_, attempt=attempt, last=last, backoff=backoff)
        try:
            async with self._machine.creating:
                bundle = self._paths.bundle(name, attempt)
                await asyncio.to_thread(bundles.make, self._machine, pod, self.container, bundle, around, id_)
                self._save()
                log_path = self._paths.log(name, attempt)
                log_path.parent.mkdir(parents=True, exist_ok=True)
                runtime, plain = self._machine.runtime, self.container
                pid = await runtime.create(
                    id_, bundle, log_path, terminal=plain.tty, stdin=plain.stdin, stdin_once=plain.stdin_once
                )
                self._event("Created", f"Created container: {name}")
                self._save(pid=pid, pid_start=processes.start_time(pid))
                process = os.pidfd_open(pid)
                try:
                    await runtime.start(id_)
                except BaseException:
                    os.close(process)
                    raise
        except (RuntimeFailure, OSError) as error:
            await self._start_failed(waiting, str(error))
            return
        self._save(started_at=time.time())
        self._running(replace(waiting, started_at=time.time()), process)
        self._event("Started", f"Started container {name}")
        self._begin(around.address, age=0.0)
        await asyncio.to_thread(bundles.forget_old, self._paths, name, attempt)

    def _running(self, view: View, process: int) -> None:
        """The container runs: watch for its end, at once."""
        self._process = process
        self.ended = asyncio.Event()  # a new one: who waits for the end of the attempt before keeps its own
        plain = self.container
        ready = view.ready or plain.readiness_probe is None
        started = view.started or plain.startup_probe is None
        hook = plain.lifecycle is not None and plain.lifecycle.post_start is not None and not view.started
        self._set(
            replace(
                view,
                state=State.RUNNING,
                exit=None,
                started=started and not hook,
                ready=ready and started and not hook,
            )
        )
        self._spawn(self._watch(view.id, os.dup(process)))

    def _begin(self, address: str, age: float) -> None:
        """After the start, or an adoption: the hook if there is one, then the probes."""
        hook = self.container.lifecycle.post_start if self.container.lifecycle else None
        if hook is None or self.view.started:
            self._probe(address, age)
            return

        async def post_start() -> None:
            problem = await run_hook(hook, self.container, address, self.execute, timeout=600.0)
            if problem:
                self._event("FailedPostStartHook", f"PostStartHook failed: {problem}", warning=True)
                await self.stop(2.0, f"FailedPostStartHook: container {self.container.name} will be restarted")
                return
            started = self.container.startup_probe is None
            self._set(replace(self.view, started=started, ready=started and self.container.readiness_probe is None))
            self._probe(address, age)

        self._spawn(post_start())

    def _probe(self, address: str, age: float) -> None:
        self._prober = Prober(self.container, address, self.execute, self._probed, self._complained)
        self._prober.start(started=self.view.started, ready=self.view.ready, age=age)

    # ── what goes wrong before it runs ───────────────────────────────────────────────────────────────────────────────

    def _wait(self, reason: str, message: str, now: float, *, first: float, longest: float) -> None:
        delay = min(first * 2.0 ** min(self._failures, 20), longest)
        self._failures += 1
        self._set(self.view.waiting(reason, message, retry_at=now + delay))
        self._event("Failed", f"Error: {message}", warning=True)

    def _image_missing(self, message: str, now: float) -> None:
        image, first = self.container.image, self._failures == 0
        delay = min(10.0 * 2.0 ** min(self._failures, 10), 300.0)
        self._failures += 1
        shown = message if first else f'Back-off pulling image "{image}": ErrImagePull: {message}'
        self._set(self.view.waiting("ErrImagePull" if first else "ImagePullBackOff", shown, retry_at=now + delay))
        if first:
            self._event("Failed", f'Failed to pull image "{image}": {message}', warning=True)
            self._event("Failed", "Error: ErrImagePull", warning=True)
        else:
            self._event("BackOff", f'Back-off pulling image "{image}"')

    async def _start_failed(self, view: View, message: str) -> None:
        """The program can't be executed: an exit like any other, so that back-off and restartPolicy apply."""
        exit_ = Exit(START_FAILED, "StartError", time.time(), message=message, id=view.id)
        self._save(exit=exit_)
        self._set(view.ended(exit_))
        self._event("Failed", f"Error: {message}", warning=True)
        await self._machine.runtime.delete(view.id)

    # ── the end of an attempt ────────────────────────────────────────────────────────────────────────────────────────

    async def _watch(self, id_: str, process: int) -> None:
        exits = self._machine.exits
        code = await exits.wait(id_, process)
        now = time.time()
        reason = "Completed" if code == 0 else "Error"
        message = self._last_words(self.view.attempt, code)
        if code is None:
            message = message or "the container's monitor (conmon) was gone: the exit code is unknown"
        if code is not None and (self._paths.bundle(self.container.name, self.view.attempt) / "oom").exists():
            reason = "OOMKilled"
        finished = exits.finished_at(id_, now)
        exit_ = Exit(LOST if code is None else code, reason, finished, self.view.started_at, message, id_)
        if self._prober is not None:
            self._prober.stop()
        self._set(self.view.ended(exit_))
        os.close(self._process)
        self._process = -1
        self._save(exit=exit_)
        self.ended.set()
        await self._machine.runtime.delete(id_)

    async def stop(self, grace: float, why: str, *, hook: bool = True) -> None:
        """preStop, SIGTERM, SIGKILL after `grace` seconds. Returns when it has ended. A second call can only hurry."""
        loop, ended = asyncio.get_running_loop(), self.ended
        if ended.is_set():
            return
        deadline = loop.time() + grace
        if self._deadline:
            self.hurry(grace)
            await ended.wait()
            return
        self._deadline = deadline
        self._event("Killing", why)
        try:
            pre_stop = self.container.lifecycle.pre_stop if self.container.lifecycle else None
            if hook and pre_stop is not None and grace > 0:
                problem = await run_hook(pre_stop, self.container, self._address(), self.execute, timeout=grace)
                if problem:
                    self._event("FailedPreStopHook", f"PreStopHook failed: {problem}", warning=True)
                self._deadline = max(self._deadline, loop.time() + MIN_GRACE)
            self._signal(signal.SIGTERM)
            while not ended.is_set() and (left := self._deadline - loop.time()) > 0:
                self._hurry.clear()
                waits = [asyncio.ensure_future(ended.wait()), asyncio.ensure_future(self._hurry.wait())]
                await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in waits:
                    task.cancel()
            if not ended.is_set():
                self._signal(signal.SIGKILL)
            await ended.wait()
        finally:
            self._deadline = 0.0

    def hurry(self, grace: float) -> None:
        """Shorten a stop under way to `grace` seconds from now."""
        if self._deadline:
            self._deadline = min(self._deadline, asyncio.get_running_loop().time() + grace)
            self._hurry.set()

    def _signal(self, number: signal.Signals) -> None:
        if self._process >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)

    def _address(self) -> str:
        return self._prober.address if self._prober is not None else ""

    def quiet(self) -> None:
        """The pod is going: no more liveness or startup probes; readiness goes on, as upstream."""
        if self._prober is not None:
            self._prober.stop(keep_readiness=True)

    def leave(self) -> None:
        """The agent stops: let go without ending anything."""
        if self._prober is not None:
            self._prober.stop()
        for task in self._tasks:
            task.cancel()
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    # ── probes ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _probed(self, progress: Progress) -> None:
        if not self.view.running:
            return
        match progress.role:
            case Role.STARTUP if progress.passing:
                self._set(replace(self.view, started=True, ready=self.container.readiness_probe is None))
            case Role.READINESS:
                self._set(replace(self.view, ready=progress.passing))
            case _ if not self._deadline:
                role = progress.role.value.lower()
                why = f"Container {self.container.name} failed {role} probe, will be restarted"
                self._spawn(self.stop(float(self._pod.spec.termination_grace_period_seconds), why))

    def _complained(self, role: Role, message: str) -> None:
        self._event("Unhealthy", f"{role.value} probe failed: {message}", warning=True)

    async def execute(self, command: Sequence[str], timeout: float | None) -> Finished:
        return await self._machine.runtime.execute(self.view.id, command, timeout)

    # ── adoption ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def adopt(self, address: str, known: ContainerStatus | None) -> bool:
        """Find what an earlier agent left of this container. `known`: its status in the API. False: nothing."""
        name = self.container.name
        for attempt in records.attempts(self._paths, name):
            record = records.load(self._paths.bundle(name, attempt) / "container.json", ContainerRecord)
            if record is not None:
                break
        else:
            return False
        self._record = record
        backoff = Backoff(record.backoff_delay, record.backoff_since)
        view = View(name, id=record.id, attempt=attempt, last=record.last, backoff=backoff)
        view = replace(view, started_at=record.started_at)
        if record.exit is not None:
            self.view = view.ended(record.exit)
            return True
        same = known is not None and known.container_id.endswith(record.id)
        try:
            process = processes.open_same(record.pid, record.pid_start)
            if not record.started_at:
                await self._machine.runtime.start(record.id)
                view = replace(view, started_at=time.time())
                self._save(started_at=view.started_at)
        except (ProcessLookupError, RuntimeFailure):
            self._lost(view)
            return True
        if same and known is not None:
            view = replace(view, started=bool(known.started), ready=known.ready)
        self._running(view, process)
        self._begin(address, age=max(0.001, time.time() - view.started_at))
        return True

    def _lost(self, view: View) -> None:
        """It ended, or never began, while no agent was there."""
        exits, now = self._machine.exits, time.time()
        code = exits.code(view.id)
        reason = "Completed" if code == 0 else "Error" if code is not None else "ContainerStatusUnknown"
        message = self._last_words(view.attempt, code)
        if code is None:
            message = message or "The container could not be located when the pod was terminated"
        finished = exits.finished_at(view.id, now)
        exit_ = Exit(LOST if code is None else code, reason, finished, view.started_at, message, view.id)
        self._save(exit=exit_)
        self.view = view.ended(exit_)
        self._spawn(self._clear_away(view.id))

    def _last_words(self, attempt: int, code: int | None) -> str:
        name, policy = self.container.name, self.container.termination_message_policy
        return termination.message(self._paths.bundle(name, attempt), self._paths.log(name, attempt), policy, code)

    async def _clear_away(self, id_: str) -> None:
        """The agent before was killed while it created this one: the monitor may be at it still."""
        await asyncio.to_thread(processes.kill, processes.with_argument(id_))
        await self._machine.runtime.delete(id_)

    # ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _save(self, **changes: object) -> None:
        assert self._record is not None
        self._record = msgspec.structs.replace(self._record, **changes)
        bundle = self._paths.bundle(self.container.name, self._record.attempt)
        if bundle.is_dir():
            records.save(bundle / "container.json", self._record)

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._machine.tell(self._pod, reason, message, container=self.container.name, warning=warning)

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod %s/%s, container %s: %s", *self._pod.key, self.container.name, error, exc_info=error)
