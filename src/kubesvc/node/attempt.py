"""One attempt of a container: its record on disk, its process, and how it ended. container.py says when.

    recorded ──► created (pid) ──► started ──► ended (exit code)

Every step is on disk before the next one begins, so that an agent started later goes on where this one was killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from kubesvc.api.pods import Container, Pod
from kubesvc.node import bundles, cgroups, processes, records, termination
from kubesvc.node.bundles import Surroundings
from kubesvc.node.config import PodPaths
from kubesvc.node.exits import LOST
from kubesvc.node.images.image import Image
from kubesvc.node.lifecycle import Exit
from kubesvc.node.machine import Machine
from kubesvc.node.records import ContainerRecord
from kubesvc.node.runtime import Finished

log = logging.getLogger(__name__)

KILLED = 128 + signal.SIGKILL


class Attempt:
    """`record` is what is on disk; `ended` is set when nothing of it runs any more."""

    def __init__(self, machine: Machine, paths: PodPaths, container: Container, record: ContainerRecord) -> None:
        self.record = record
        self.ended = asyncio.Event()
        self._machine, self._paths, self._container = machine, paths, container
        self._process = -1  # a pidfd while it runs

    # ── beginning ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, pod: Pod, around: Surroundings, image: Image) -> None:
        """Up to the point where its program would begin. Raises RuntimeFailure, OSError, ConfigError."""
        container, record, runtime = self._container, self.record, self._machine.runtime
        bundle, output = self._bundle, self._paths.log(record.name, record.attempt)
        await asyncio.to_thread(bundles.make, self._machine, pod, container, bundle, around, record.id, image)
        self._save()
        output.parent.mkdir(parents=True, exist_ok=True)
        pid = await runtime.create(
            record.id,
            bundle,
            output,
            terminal=container.tty,
            stdin=container.stdin,
            stdin_once=container.stdin_once,
        )
        self._save(pid=pid, pid_start=processes.start_time(pid))

    async def start(self) -> None:
        """Let its program begin, or find that it has. Raises RuntimeFailure, ProcessLookupError."""
        process = processes.open_same(self.record.pid, self.record.pid_start)
        try:
            if not self.record.started_at:
                await self._machine.runtime.start(self.record.id)
                self._save(started_at=time.time())
        except BaseException:
            os.close(process)
            raise
        self._process = process

    # ── while it runs ────────────────────────────────────────────────────────────────────────────────────────────────

    async def execute(self, command: Sequence[str], timeout: float | None) -> Finished:
        """A command in it. Raises TimeoutError, RuntimeFailure, OSError."""
        return await self._machine.runtime.execute(self.record.id, command, timeout)

    @property
    def stop_signal(self) -> signal.Signals:
        """SIGTERM, or what the image wants in its place: SIGQUIT, QUIT or 3."""
        text = self.record.stop_signal
        if text.isdigit() and int(text) in set(signal.Signals):
            return signal.Signals(int(text))
        return signal.Signals.__members__.get("SIG" + text.removeprefix("SIG"), signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        if self._process >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)

    def let_go(self) -> None:
        """Forget the process without ending it."""
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def finish(self) -> Exit:
        """Wait for its end."""
        code = await self._machine.exits.wait(self.record.id, os.dup(self._process))
        unknown = "the container's monitor (conmon) was gone: the exit code is unknown"
        exit_ = self._exit(code, "Error", unknown)
        self.let_go()
        return exit_

    def lost(self) -> Exit:
        """It ended, or never began, while no agent was there."""
        unknown = "The container could not be located when the pod was terminated"
        code = self._machine.exits.code(self.record.id)
        return self._exit(code, "ContainerStatusUnknown" if code is None else "Error", unknown)

    def failed(self, code: int, message: str) -> Exit:
        """Its program could not be executed."""
        exit_ = Exit(code, "StartError", time.time(), message=message, id=self.record.id)
        self._note(exit_)
        return exit_

    def _exit(self, code: int | None, error: str, unknown: str) -> Exit:
        record = self.record
        reason = "Completed" if code == 0 else error
        # One child killed for want of memory isn't the container's end: the first process decides.
        if code == KILLED and cgroups.oom_kills(f"{self._machine.config.cgroup}/{record.id}"):
            reason = "OOMKilled"
        policy = self._container.termination_message_policy
        message = termination.message(self._bundle, self._paths.log(record.name, record.attempt), policy, code)
        if code is None:
            message = message or unknown
        finished = self._machine.exits.finished_at(record.id, time.time())
        exit_ = Exit(LOST if code is None else code, reason, finished, record.started_at, message, record.id)
        self._note(exit_)
        return exit_

    async def clear_away(self, *, monitor: bool = False) -> None:
        """Take away what the runtime knows of it; with `monitor`, a conmon first that may be at it still."""
        if monitor:
            await asyncio.to_thread(processes.kill, processes.with_argument(self.record.id))
        await self._machine.runtime.delete(self.record.id)

    def _note(self, exit_: Exit) -> None:
        """A full disk is no reason not to tell of an end: only an agent started later would have to find it anew."""
        try:
            self._save(exit=exit_)
        except OSError as error:
            log.warning("container %s: its end can't be recorded: %s", self.record.name, error)

    # ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _bundle(self) -> Path:
        return self._paths.bundle(self.record.name, self.record.attempt)

    def _save(self, **changes: object) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)
        if self._bundle.is_dir():
            records.save(self._bundle / "container.json", self.record)


def latest(paths: PodPaths, name: str) -> ContainerRecord | None:
    """The record of a container's last attempt, None when there is none."""
    for attempt in records.attempts(paths, name):
        record = records.load(paths.bundle(name, attempt) / "container.json", ContainerRecord)
        if record is not None:
            return record
    return None
