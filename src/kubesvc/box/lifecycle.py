"""The life of a box: up, stop, down. Each step makes sure of what should be there and keeps what is, so that `up`
after a crash, a `kill -9` or a reboot goes on with the same objects and the same addresses.

    up: definition ─► lock ─► fork supervisor ─► certificates ─► network ─► sockets ─► children ─► ready
                                   └── progress, a line a step, through a pipe ──► who called `up`
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from kubesvc.box import children, control, controlplane, egress, lock, network, processes, publish, ranges, sockets
from kubesvc.box.certificates import ensure_certificates
from kubesvc.box.changes import Changes
from kubesvc.box.definition import RUN, Box, Options, define, name_flag, networks_of_others, recall, remember
from kubesvc.box.errors import AlreadyRunning, BoxError
from kubesvc.box.publish import Published
from kubesvc.box.supervisor import Supervisor, end_with, redirect
from kubesvc.kernel import turns
from kubesvc.node.cni.attachments import load
from kubesvc.node.cni.network import CniError

log = logging.getLogger(__name__)

READY_PATIENCE = 60.0  # seconds until `up` gives up waiting for every node
STOP_PATIENCE = 15.0

PROGRAMS = {"runc": "runc", "conmon": "conmon"}  # program -> Debian package


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `up`: a step that is done after `seconds`, or a warning, or why it failed."""

    step: str = ""
    seconds: float = 0.0
    warning: str = ""
    error: str = ""
    done: bool = False


Show = Callable[[Progress], None]


def up(name: str, directory: Path, options: Options, *, detach: bool, show: Show) -> Box:
    """Start the box; returns once it is ready. Raises AlreadyRunning, BoxError.

    The box's processes are children of a forked supervisor. Unless `detach`, the supervisor ends with the caller.
    """
    if os.geteuid() != 0:
        raise BoxError("a box needs root, for network namespaces and nftables: run `sudo kubesvc up`")
    before = recall(directory) or recall(RUN / name)
    box = define(name, directory, options, before)
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            show(Progress(warning=f"{program} is not installed, so pods can't start: apt install {package}"))
    network.check(box)
    _check_cni(box, before)
    descriptor = _lock(box)
    _warn_of_publications(box, show)
    try:
        with turns.alone(RUN):  # of two boxes that start at once the second sees what the first has chosen
            box = _choose_network(box)
            published = publish.listen(box)
            listener = sockets.listen_on_host(box)
            box = msgspec.structs.replace(box, api_port=listener.getsockname()[1])
            remember(box)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        supervisor = os.fork()
        if supervisor == 0:
            os.close(reading)
            _supervise(box, listener, published, writing, detach)
        os.close(writing)
        listener.close()
        publish.close(published)
    except BoxError:
        if recall(box.run_path) is None:  # nothing was made but the lock
            _forget_run(box)
        raise
    finally:
        os.close(descriptor)  # the supervisor holds it now
    _follow(reading, show)
    return box


def _check_cni(box: Box, before: Box | None) -> None:
    if before is not None and before.cni != box.cni and any(box.run_path.glob("*/pods/*")):
        down_command = f"kubesvc down{name_flag(box.name)}"
        raise BoxError(f"--cni {box.cni!r}: pods of before have another network; `{down_command}` ends them")
    if box.cni:
        try:
            from kubesvc.box import nodeprocesses

            load(nodeprocesses.cni_config(box, ""))
        except CniError as error:
            raise BoxError(f"--cni {box.cni}: {error}") from error


def _warn_of_publications(box: Box, show: Show) -> None:
    first, last = box.port_range
    for publication in box.publications:
        if not first <= publication.node_port <= last:
            text = f"--publish {publication}: no new Service gets node port {publication.node_port}"
            show(Progress(warning=f"{text}, which is outside --node-port-range {box.node_port_range}"))


def _forget_run(box: Box) -> None:
    shutil.rmtree(box.run_path, ignore_errors=True)
    with suppress(OSError):  # other boxes' are there
        RUN.rmdir()


def _lock(box: Box) -> int:
    """The box's lock; what a killed supervisor left is ended first. Raises AlreadyRunning."""
    descriptor = lock.acquire(box.run_path)
    if descriptor is None:
        status = processes.load(box.run_path)
        if status is None or processes.alive(status.supervisor):
            raise AlreadyRunning(f"box {box.name!r} is running; see `kubesvc status{name_flag(box.name)}`")
        _end_orphans(box)
        descriptor = lock.acquire(box.run_path)
        if descriptor is None:
            down_command = f"kubesvc down{name_flag(box.name)}"
            raise BoxError(f"box {box.name!r}: processes of it still live; `{down_command}` ends them")
    return descriptor


def _end_orphans(box: Box) -> None:
    """End what lost its supervisor, in order if it will, by force if it won't."""
    status = processes.load(box.run_path)
    for process in status.processes if status else ():
        if not processes.stop(process, signal.SIGTERM, 2.0):
            processes.stop(process, signal.SIGKILL, 2.0)


def _choose_network(box: Box) -> Box:
    """Settle the node network: the remembered one while it is still free, else one that overlaps nothing here."""
    taken = [*network.host_networks(but=network.host_link(box.name)), *networks_of_others(box.name)]
    if not box.node_cidr:
        chosen = (str(ranges.choose_network(taken, version)) for version in box.versions)
        return msgspec.structs.replace(box, node_cidr=",".join(chosen))
    for used in taken:
        if used.prefixlen and any(used.version == n.network.version and used.overlaps(n.network) for n in box.networks):
            raise BoxError(
                f"node network {box.node_cidr} of box {box.name!r} overlaps {used}, which this machine uses already; "
                f"choose another --node-cidr (for a box made before: `kubesvc down{name_flag(box.name)} --purge` first)"
            )
    return box


def _supervise(box: Box, listener: socket.socket, published: tuple[Published, ...], writing: int, detach: bool) -> None:
    """The supervisor's whole life; never returns."""
    code = 1
    parent = os.getppid()
    try:
        os.setsid()
        if not detach:
            end_with(parent)
        redirect(box.path / "logs" / "supervisor.log")
        _start(box, listener, published, _Reporter(writing))
        code = 0
    except BoxError as error:
        _Reporter(writing).send(Progress(error=str(error)))
    except BaseException as error:
        log.exception("the supervisor failed")
        _Reporter(writing).send(Progress(error=f"{error}; see {box.path / 'logs' / 'supervisor.log'}"))
    finally:
        logging.shutdown()
        os._exit(code)


class _Reporter:
    """Writes progress for whoever called `up`, who may be gone already."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def send(self, progress: Progress) -> None:
        try:
            os.write(self.descriptor, msgspec.json.encode(progress) + b"\n")
        except OSError:
            pass

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.send(Progress(step=text, seconds=time.monotonic() - began))


def _start(box: Box, listener: socket.socket, published: tuple[Published, ...], reporter: _Reporter) -> None:
    with reporter.step("certificates"):
        identities = ensure_certificates(box)
    with reporter.step(
        f"network {box.node_cidr}, {len(box.node_names)} {'node' if len(box.node_names) == 1 else 'nodes'}"
    ):
        network.ensure(box)
        egress.ensure(box)
        listening = sockets.open_all(box, listener, published)
    began = time.monotonic()
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    parts = children.Parts(box, identities, listening, writing)
    supervisor = Supervisor(box.run_path, box.path / "logs", parts.children())
    waiting = {"API server", *(f"{node} {part}" for node in box.node_names for part in ("ready", "DNS"))}

    def on_progress() -> None:
        try:
            data = os.read(reading, 4096)
        except BlockingIOError:
            return
        for said in data.decode().split("\n"):
            if waiting and said.startswith(controlplane.FAILED):
                reporter.send(Progress(error=said.removeprefix(controlplane.FAILED)))
                supervisor.end()
                return
            if waiting and said.startswith(controlplane.WARNING):
                reporter.send(Progress(warning=said.removeprefix(controlplane.WARNING)))
            if said in waiting:
                waiting.discard(said)
                reporter.send(Progress(step=said, seconds=time.monotonic() - began))
                if not waiting:
                    supervisor.mark_ready()
                    reporter.send(Progress(done=True))
                    os.close(reporter.descriptor)

    supervisor.on_input(reading, on_progress)
    requests = control.listen(box)
    supervisor.on_input(requests.fileno(), lambda: control.serve(requests, Changes(parts, supervisor).carry_out))
    supervisor.start()
    supervisor.loop()


def _follow(reading: int, show: Show) -> None:
    """Show progress until the box is ready. Raises BoxError when it fails or takes longer than READY_PATIENCE."""
    decoder = msgspec.json.Decoder(Progress)
    deadline = time.monotonic() + READY_PATIENCE
    with os.fdopen(reading, "rb") as lines:
        said = _lines(lines.fileno(), deadline)
        for line in said:
            progress = decoder.decode(line)
            if progress.error:
                with suppress(BoxError):
                    list(said)  # until the supervisor and all it started are gone
                raise BoxError(progress.error)
            if progress.done:
                return
            show(progress)
    raise BoxError("the supervisor ended before the box was ready; see the logs in its directory")


def _lines(descriptor: int, deadline: float) -> Iterator[bytes]:
    rest = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise BoxError(
                f"the box isn't ready after {READY_PATIENCE:.0f} s; `kubesvc status` and its logs say what is missing"
            )
        data = os.read(descriptor, 65536)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from whole


def wait(box: Box) -> bool:
    """Wait until the supervisor ends, which it does not do by itself; True at once when it is gone already.

    SIGINT and SIGTERM end the waiting: False."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    status = processes.load(box.run_path)
    if status is None or not processes.alive(status.supervisor):
        return True
    descriptor = os.pidfd_open(status.supervisor.pid)
    before = [(number, signal.signal(number, interrupt)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        select.select([descriptor], [], [])
    except KeyboardInterrupt:
        return False
    finally:
        os.close(descriptor)
        for number, handler in before:
            signal.signal(number, handler)
    return True


def stop(box: Box) -> None:
    """End the supervisor and its children; pods, namespaces and data stay. Raises BoxError if they won't go."""
    status = processes.load(box.run_path)
    if status is not None and not processes.stop(status.supervisor, signal.SIGTERM, STOP_PATIENCE):
        processes.stop(status.supervisor, signal.SIGKILL, 2.0)
    _end_orphans(box)
    if lock.held(box.run_path):
        raise BoxError(f"box {box.name!r}: some of its processes did not end; see {box.path / 'logs'}")


def _end_pods(box: Box) -> None:
    from kubesvc.box import nodeprocesses

    nodeprocesses.teardown_nodes(box)


def _remove_network(box: Box) -> None:
    egress.remove(box)
    network.remove(box)


def down(box: Box, *, purge: bool, show: Show) -> None:
    """Stop the box and take away all it put on this machine; with `purge` its data too."""
    steps: tuple[tuple[str, Callable[[Box], None]], ...] = (
        ("processes stopped", stop),
        ("pods ended", _end_pods),
        ("network removed", _remove_network),
    )
    for text, action in steps:
        began = time.monotonic()
        action(box)
        show(Progress(step=text, seconds=time.monotonic() - began))
    _forget_run(box)
    if purge:
        shutil.rmtree(box.path, ignore_errors=True)
        show(Progress(step=f"data removed from {box.path}"))
