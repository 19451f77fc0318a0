"""Several processes that answer on one address, where one core isn't enough.

    parent ── holds every socket ──fork──► worker 0   answers; announces, reports, serves /metrics for all
                                  ├─fork──► worker 1   answers
                                  └─fork──► …          each follows the API by itself

Every worker has a UDP and a TCP socket of its own on the same address: the kernel shares clients out among them by
their address and port (SO_REUSEPORT). The parent holds the sockets, so that what is asked of a worker that died waits
for the next one. Worker 0 ends first, since it is the one that tells proxies to go elsewhere.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

MOST = 64
CORES_EACH = 4  # the rest is for those who ask
RESTART_SECONDS = 0.5  # until a worker that died is there again
_WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PAGE = 1 << 18  # bytes of one worker's metrics
_head = struct.Struct("QQ")  # count of writes (odd: one is under way), length


def usual(cores: int) -> int:
    """How many workers so many cores are worth: one below 8."""
    return max(1, min(8, cores // CORES_EACH))


class Board:
    """A page of metrics of each worker, in memory that all of them share."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, workers * _PAGE)
        self._workers = workers

    def write(self, worker: int, page: str) -> None:
        data = page.encode()
        if len(data) > _PAGE - _head.size:
            raise ValueError(f"worker {worker}: {len(data)} bytes of metrics; expected at most {_PAGE - _head.size}")
        at = worker * _PAGE
        writes, _ = _head.unpack_from(self._memory, at)
        _head.pack_into(self._memory, at, writes | 1, 0)
        self._memory[at + _head.size : at + _head.size + len(data)] = data
        _head.pack_into(self._memory, at, (writes | 1) + 1, len(data))

    def read(self, worker: int) -> str:
        """What the worker wrote last, "" before it has; torn pages are read again."""
        at = worker * _PAGE
        for _ in range(100):
            before = _head.unpack_from(self._memory, at)
            data = self._memory[at + _head.size : at + _head.size + before[1]]
            if not before[0] & 1 and before == _head.unpack_from(self._memory, at):
                return data.decode()
        return ""

    def total(self, own: int, page: str) -> str:
        """The metrics of all workers added up; `own` has its newest page at hand."""
        return added([page, *(self.read(worker) for worker in range(self._workers) if worker != own)])


def added(pages: list[str]) -> str:
    """Prometheus pages as one: samples of the same name and labels are summed; of "…_up" the lowest counts."""
    values: dict[str, float] = {}  # sample, or comment -> its value
    for page in pages:
        for line in page.splitlines():
            if line.startswith("#"):
                values.setdefault(line, 0)
                continue
            sample, _, text = line.rpartition(" ")
            value = float(text)
            lowest = sample.partition("{")[0].endswith("_up")
            values[sample] = (
                value if sample not in values else min(values[sample], value) if lowest else values[sample] + value
            )
    return "".join(f"{key}\n" if key.startswith("#") else f"{key} {_number(one)}\n" for key, one in values.items())


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def supervise(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in `count` processes until SIGTERM or SIGINT, and again where one ends before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    running: dict[int, int] = {}  # process -> worker
    due = dict.fromkeys(range(count), 0.0)  # worker -> when to start it
    try:
        while True:
            for worker in [one for one, when in due.items() if when <= time.monotonic()]:
                del due[worker]
                running[_fork(worker, work, before)] = worker
            wait = max(0.0, min(due.values()) - time.monotonic()) if due else 3600.0
            told = signal.sigtimedwait(_WATCHED, wait)
            if told is not None and told.si_signo != signal.SIGCHLD:
                return
            for process, status in _ended():
                worker = running.pop(process)
                log.warning("worker %d ended (%s); another takes its place", worker, _how(status))
                due[worker] = time.monotonic() + RESTART_SECONDS
    finally:
        for process in sorted(running, key=running.__getitem__):
            os.kill(process, signal.SIGTERM)
            if running[process] == 0:
                os.waitpid(process, 0)
        for process, worker in running.items():
            if worker != 0:
                os.waitpid(process, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork(worker: int, work: Callable[[int], None], mask: Iterable[int]) -> int:
    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == parent:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            work(worker)
        os._exit(0)
    except BaseException:
        log.exception("worker %d", worker)
        os._exit(1)


def _ended() -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not process:
            return found
        found.append((process, status))


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
