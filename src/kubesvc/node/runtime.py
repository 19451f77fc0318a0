"""The OCI runtime and conmon, as programs: create, start, exec, delete.

conmon stays with a container for its life: it holds the ends of stdout and stderr, writes the log, and at the end the
exit file. It outlives the agent, and so containers do.

    agent ──► conmon (detaches) ──► runc create ──► the container's init
       ◄── sync pipe: {"data": pid} ──┘
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from kubesvc.kernel import mounts
from kubesvc.kernel.descriptors import readable
from kubesvc.node import capabilities, cgroups
from kubesvc.node.config import NodeConfig

log = logging.getLogger(__name__)

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/podman:/usr/libexec/crio"
PACKAGES = {"runc": "runc", "crun": "crun", "conmon": "conmon", "du": "coreutils"}  # program -> Debian package
MAX_LOG = 64 << 20  # bytes; then conmon starts the log anew
_KERNEL_SECCOMP = Path("/proc/sys/kernel/seccomp")


class RuntimeFailure(Exception):
    """The runtime refused or is not there; the message is its own, or says what to install."""


class Finished(msgspec.Struct, frozen=True):
    """A command that ran in a container: its exit code and what it printed, stdout and stderr together."""

    code: int
    output: str


class Features(msgspec.Struct, frozen=True):
    """What the runtime and the kernel can do that not all of them can."""

    seccomp: bool = True  # while nobody knows better: the runtime says so itself when it can't
    all_read_only: bool = False
    """Mounts are made read-only with what is mounted below them."""


class _Seccomp(msgspec.Struct):
    enabled: bool = True


class _Linux(msgspec.Struct):
    seccomp: _Seccomp = msgspec.field(default_factory=_Seccomp)


class _Told(msgspec.Struct, rename="camel"):
    """What `runc features` prints."""

    mount_options: list[str] = []
    linux: _Linux = msgspec.field(default_factory=_Linux)


class _Sync(msgspec.Struct):
    """What conmon writes on the sync pipe: the pid, or -1 and why not."""

    data: int = -1
    message: str = ""


def find_program(name: str) -> str:
    """The path of a program. Raises RuntimeFailure, naming the Debian package."""
    found = shutil.which(name, path=SEARCH)
    if found is None:
        package = PACKAGES.get(Path(name).name, name)
        raise RuntimeFailure(f"{name} is not installed, and containers need it: apt install {package}")
    return found


class Runtime:
    """The runtime of one node."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._paths = config.paths
        self.has_cgroups = cgroups.writable()
        self.capabilities = capabilities.available()
        self.features = Features()
        self._knows_features = False

    def check(self) -> None:
        """Raises RuntimeFailure when a program is missing."""
        for name in (self._config.runtime, self._config.monitor):
            find_program(name)

    def command(self, *arguments: str) -> list[str]:
        # Without cgroups to write to, runc goes on only if told that it isn't to expect them.
        rootless = [] if self.has_cgroups else ["--rootless", "true"]
        # With a log elsewhere, stderr has the plain error alone; conmon gives a log of its own.
        log = ["--log", "/dev/null"] if arguments else []
        return [find_program(self._config.runtime), "--root", str(self._paths.runtime), *rootless, *log, *arguments]

    async def create(
        self,
        id_: str,
        bundle: Path,
        log: Path,
        *,
        terminal: bool = False,
        stdin: bool = False,
        stdin_once: bool = False,
    ) -> int:
        """Make the container of `bundle` up to the point where its program would begin; returns its pid.

        Its stdin, if it has one, stays open when a client detaches, unless it is for one client alone.
        """
        runtime, *runtime_arguments = self.command()
        command = [
            find_program(self._config.monitor), "--api-version", "1", "-c", id_, "-u", id_, "-n", id_,
            "-r", runtime, "-b", str(bundle), "-p", str(bundle / "pidfile"),
            "--conmon-pidfile", str(bundle / "conmon.pid"), "-l", f"k8s-file:{log}", "--log-level", "error",
            "--log-size-max", str(MAX_LOG), "--exit-dir", str(self._paths.exits),
            "--socket-dir-path", str(self._paths.sockets), "--full-attach", "--no-sync-log",
        ]  # fmt: skip
        command += ["-t"] if terminal else []
        command += ["-i"] if stdin else []
        command += ["--leave-stdin-open"] if stdin and not stdin_once else []
        for argument in runtime_arguments:
            command += ["--runtime-arg", argument]
        ours, theirs = os.pipe()
        try:
            environment = {"PATH": SEARCH, "_OCI_SYNCPIPE": str(theirs)}
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=bundle,  # where conmon leaves a file after an OOM
                env=environment,
                pass_fds=(theirs,),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        finally:
            os.close(theirs)
        try:
            answer = await _line(ours)
        finally:
            os.close(ours)
        await process.wait()
        try:
            sync = msgspec.json.decode(answer, type=_Sync)
        except msgspec.DecodeError as error:
            raise RuntimeFailure(f"{self._config.monitor} ended without an answer: {answer!r}") from error
        if sync.data <= 0:
            raise RuntimeFailure(_readable(sync.message) or f"{self._config.runtime} create failed")
        return sync.data

    async def learn_features(self) -> None:
        """Ask the runtime what it can do, once, since only few pods need to know. One too old to tell can little."""
        if self._knows_features:
            return
        try:
            done = await self._run("features")
            told = msgspec.json.decode(done.output, type=_Told)
        except (OSError, RuntimeFailure, msgspec.DecodeError) as error:
            log.info("%s doesn't say what it can do: %s", self._config.runtime, error)
            told = _Told()
        deep = "rro" in told.mount_options and mounts.can_make_all_read_only()
        self.features = Features(told.linux.seccomp.enabled and _KERNEL_SECCOMP.exists(), deep)
        self._knows_features = True

    async def start(self, id_: str) -> None:
        """Let the program of a created container begin. Raises RuntimeFailure when it can't be executed."""
        done = await self._run("start", id_)
        if done.code != 0:
            raise RuntimeFailure(_readable(done.output))

    async def delete(self, id_: str) -> None:
        """Kill what is left and forget the container; one that is not known is fine."""
        if (self._paths.runtime / id_).exists():
            await self._run("delete", "--force", id_)
        with suppress(FileNotFoundError):
            (self._paths.exits / id_).unlink()

    def pidfile(self) -> Path:
        """Where an exec may write the pid of its command; the caller removes it."""
        return self._paths.sockets / f"exec-{os.urandom(6).hex()}.pid"

    async def execute(self, id_: str, command: Sequence[str], timeout: float | None) -> Finished:
        """Run a command in a container. Raises TimeoutError; the command is killed then."""
        pidfile = self.pidfile()
        try:
            async with asyncio.timeout(timeout):
                return await self._run("exec", "--pid-file", str(pidfile), id_, *command)
        except TimeoutError:
            with suppress(OSError, ValueError):
                os.kill(int(pidfile.read_text()), 9)
            raise
        finally:
            pidfile.unlink(missing_ok=True)

    async def _run(self, *arguments: str) -> Finished:
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            env={"PATH": SEARCH},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return Finished(process.returncode or 0, output.decode(errors="replace"))


async def _line(descriptor: int) -> bytes:
    """Read one line from a pipe, or up to its end."""
    os.set_blocking(descriptor, False)
    found = b""
    while not found.endswith(b"\n"):
        await readable(descriptor)
        part = os.read(descriptor, 65536)
        if not part:
            break
        found += part
    return found


def _readable(message: str) -> str:
    """runc's error without its log's wrapping: time="…" level=error msg="…"."""
    text = message.strip()
    if 'msg="' in text:
        text = text.rpartition('msg="')[2].rstrip('"')
    return text.replace('\\"', '"')
