"""The supervisor: forks the box's processes, restarts what dies, and writes down how it stands.

It imports everything once, in a child's place, and forks before any thread or event loop exists: a child starts in
milliseconds and shares the supervisor's memory. It holds the listening sockets too, so that a restarted child finds its
callers queued, not refused. It never runs an event loop of its own.

    supervisor ──fork──► control-plane
               ├─fork──► node1/proxy  node1/dns  node1/node
               └─fork──► node2/proxy  …
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from kubesvc.box.backoff import Backoff
from kubesvc.box.processes import Process, Status, save, start_ticks
from kubesvc.kernel import netns

log = logging.getLogger(__name__)

STOP_PATIENCE = 5.0
LOG_LIMIT = 16 << 20  # bytes; a larger log is kept as .1 when its process starts

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_NAME = 15
_libc = ctypes.CDLL(None, use_errno=True)


class Child(msgspec.Struct, frozen=True):
    """A process to keep alive. `run` is called in the fork and its coroutine runs until SIGTERM cancels it.

    One that `outlives` the others is stopped after them: they talk to it while they end.
    """

    name: str
    namespace: Path
    run: Callable[[], Coroutine[Any, Any, None]]
    outlives: bool = False


class _Running(msgspec.Struct):
    child: Child
    pid: int = 0
    descriptor: int = -1  # a pidfd
    started: int = 0
    since: float = 0.0
    restarts: int = 0
    backoff: Backoff = msgspec.field(default_factory=Backoff)
    restart_at: float = 0.0  # monotonic; meaningful while pid is 0
    last_exit: str = ""


class Supervisor:
    """Keeps `children` alive until SIGTERM or SIGINT. `on_input` maps a descriptor -> what to call when readable."""

    def __init__(self, run_path: Path, logs: Path, children: Iterable[Child]) -> None:
        self._run_path = run_path
        self._logs = logs
        self._children = children
        self._running: list[_Running] = []
        self._ready = False
        self._stopping = False
        self._inputs: dict[int, Callable[[], None]] = {}

    def on_input(self, descriptor: int, handler: Callable[[], None]) -> None:
        """Call `handler` whenever `descriptor` is readable."""
        self._inputs[descriptor] = handler

    def ignore_input(self, descriptor: int) -> None:
        self._inputs.pop(descriptor, None)

    def mark_ready(self) -> None:
        self._ready = True
        self._save()

    def end(self) -> None:
        """Have `loop` stop everything and return."""
        self._stopping = True

    def start(self) -> None:
        """Fork every child, each as soon as it is known."""
        for child in self._children:
            gc.freeze()  # a fork's garbage collector leaves the supervisor's objects, and so their pages, alone
            entry = _Running(child)
            self._running.append(entry)
            self._spawn(entry)
        self._save()

    def add(self, child: Child) -> None:
        """Keep one more alive."""
        entry = _Running(child)
        self._running.append(entry)
        self._spawn(entry)
        self._save()

    def remove(self, names: Sequence[str]) -> None:
        """Stop those called so, and don't start them again."""
        going = [entry for entry in self._running if entry.child.name in names]
        self._running = [entry for entry in self._running if entry not in going]
        self._stop([entry for entry in going if entry.pid])
        self._save()

    def restart(self, name: str) -> None:
        """Stop the one called so, if there is one: it starts again with what holds now."""
        for entry in self._running:
            if entry.child.name == name and entry.pid:
                self._stop([entry])
                entry.restart_at = time.monotonic()

    def loop(self) -> None:
        """Watch over the children until told to stop; then stop them."""
        waker, wakee = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakee, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while not self._stopping:
            watched = {entry.descriptor: entry for entry in self._running if entry.pid}
            readable, _, _ = select.select([waker, *watched, *self._inputs], [], [], self._patience())
            for descriptor in readable:
                if descriptor == waker:
                    with contextlib.suppress(BlockingIOError):
                        os.read(waker, 512)
                elif descriptor in watched:
                    if watched[descriptor].pid:  # not removed since
                        self._reap(watched[descriptor])
                elif descriptor in self._inputs:
                    self._inputs[descriptor]()
            self._restart_due()
        self._stop([entry for entry in self._running if entry.pid and not entry.child.outlives])
        self._stop([entry for entry in self._running if entry.pid])
        self._ready = False
        self._save()

    def _on_signal(self, number: int, frame: object) -> None:
        self._stopping = True

    def _patience(self) -> float | None:
        due = [entry.restart_at for entry in self._running if not entry.pid]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _spawn(self, entry: _Running) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _become(entry.child, parent, self._logs)
                code = _run(entry.child)
            except BaseException:
                log.exception("%s can't start", entry.child.name)
            finally:
                logging.shutdown()
                os._exit(code)
        entry.pid, entry.descriptor = pid, os.pidfd_open(pid)
        entry.started, entry.since = start_ticks(pid), time.time()

    def _reap(self, entry: _Running) -> None:
        _, status = os.waitpid(entry.pid, 0)
        os.close(entry.descriptor)
        code = os.waitstatus_to_exitcode(status)
        entry.last_exit = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        log.warning("%s (pid %d) ended: %s", entry.child.name, entry.pid, entry.last_exit)
        entry.backoff = entry.backoff.after(code, time.time() - entry.since)
        entry.pid, entry.descriptor = 0, -1
        entry.restart_at, entry.since = time.monotonic() + entry.backoff.delay, time.time()
        self._save()

    def _restart_due(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._running if not entry.pid and entry.restart_at <= now]
        for entry in due if not self._stopping else ():
            entry.restarts += 1
            self._spawn(entry)
            log.info("%s is back as pid %d, restart %d", entry.child.name, entry.pid, entry.restarts)
        if due:
            self._save()

    def _stop(self, alive: list[_Running]) -> None:
        """SIGTERM to all, SIGKILL to who hasn't gone within STOP_PATIENCE."""
        for entry in alive:
            signal.pidfd_send_signal(entry.descriptor, signal.SIGTERM)
        deadline = time.monotonic() + STOP_PATIENCE
        for entry in alive:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([entry.descriptor], [], [], left)[0]:
                log.warning("%s didn't stop within %.0f s: killed", entry.child.name, STOP_PATIENCE)
                signal.pidfd_send_signal(entry.descriptor, signal.SIGKILL)
            os.waitpid(entry.pid, 0)
            os.close(entry.descriptor)
            entry.pid, entry.descriptor = 0, -1

    def _save(self) -> None:
        own = Process(name="supervisor", pid=os.getpid(), started=start_ticks(os.getpid()))
        save(
            self._run_path,
            Status(supervisor=own, processes=[self._record(entry) for entry in self._running], ready=self._ready),
        )

    def _record(self, entry: _Running) -> Process:
        state = "running" if entry.pid else "stopped" if self._stopping else "backing off"
        return Process(
            name=entry.child.name,
            pid=entry.pid,
            started=entry.started,
            state=state,
            restarts=entry.restarts,
            since=entry.since,
            last_exit=entry.last_exit,
        )


def end_with(parent: int) -> None:
    """Have the kernel send the calling process SIGTERM when `parent`, its parent, ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _become(child: Child, parent: int, logs: Path) -> None:
    """Turn the fork into the child: its signals, its log, its network namespace; it ends when the supervisor does."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    end_with(parent)
    _libc.prctl(PR_SET_NAME, f"ks:{child.name}"[:15].encode(), 0, 0, 0)
    redirect(logs / f"{child.name.replace('/', '-')}.log")
    netns.enter(child.namespace)


def redirect(path: Path) -> None:
    """Send standard output, standard error and the log to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(null)
    os.close(target)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def _run(child: Child) -> int:
    """Run the child's coroutine; SIGTERM cancels it. The exit code: 0 when it was told to stop."""

    async def until_told() -> int:
        task = asyncio.ensure_future(child.run())
        told = False

        def stop() -> None:
            nonlocal told
            told = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        try:
            await task
        except asyncio.CancelledError:
            if not told:
                raise
        return 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(until_told())
