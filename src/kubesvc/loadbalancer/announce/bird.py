"""BIRD 2 as a child process: started once there is a peer, told of each change, asked for its state, ended with us.

It may not outlive this process: what it announces, nobody would take back. Where a peer has graceful restart, it is
told of one, keeps its routes for the time it agreed to, and a BIRD started anew begins by recovering.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import shutil
import signal
from pathlib import Path

from kubesvc.loadbalancer.announce import bird_state
from kubesvc.loadbalancer.announce.bird_state import Session

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds for BIRD to open its control socket, to answer, or to end
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)
_MISSING = (
    "BIRD 2 isn't installed on node {node} ({command!r} isn't found): apt install bird2, or say where with --bird"
)


class BirdError(Exception):
    """BIRD isn't there, refuses its configuration, or doesn't answer; the message says which."""


class Bird:
    """One BIRD in the calling thread's network namespace, its files in `directory`."""

    def __init__(self, node: str, command: str, directory: Path) -> None:
        self._node, self._command = node, command
        self._config, self._control = directory / "bird.conf", directory / "bird.ctl"
        self._process: asyncio.subprocess.Process | None = None
        self._written = ""
        self._graceful = False
        self._reading: asyncio.Task[None] | None = None
        self._last_words = ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def apply(self, config: str, *, graceful: bool) -> None:
        """Have it run with `config`. `graceful`: some peer has graceful restart. Raises BirdError."""
        if self.running and config == self._written:
            return
        self._config.parent.mkdir(parents=True, exist_ok=True)
        part = self._config.with_suffix(".part")
        part.touch(mode=0o600)  # it may hold passwords
        part.write_text(config)
        part.replace(self._config)
        self._graceful = graceful
        if self.running:
            if problem := bird_state.error(await self._ask("configure")):
                raise BirdError(f"BIRD refuses its configuration: {problem}")
        else:
            await self._start()
        self._written = config

    async def sessions(self) -> dict[str, Session]:
        """Its BGP protocols by name. Raises BirdError."""
        return bird_state.sessions(await self._ask("show protocols all"))

    async def stop(self) -> None:
        """End it; peers with graceful restart keep their routes for a while, others lose them at once."""
        process, self._written = self._process, ""
        if process is None or process.returncode is not None:
            return
        if self._graceful:
            with contextlib.suppress(BirdError):
                await self._ask("graceful restart")
        else:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _start(self) -> None:
        found = shutil.which(self._command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if found is None:
            raise BirdError(_MISSING.format(node=self._node, command=self._command))
        self._control.unlink(missing_ok=True)
        options = ["-R"] if self._graceful else []
        self._process = await asyncio.create_subprocess_exec(
            found,
            "-f",
            *options,
            "-c",
            str(self._config),
            "-s",
            str(self._control),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=_die_with_parent,
        )
        self._reading = asyncio.create_task(self._pass_on(self._process))
        await self._until_listening(self._process)

    async def _until_listening(self, process: asyncio.subprocess.Process) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            if process.returncode is not None:
                if self._reading is not None:
                    await self._reading
                raise BirdError(f"BIRD ended with status {process.returncode}: {self._last_words}")
            with contextlib.suppress(BirdError):
                await self._ask("show status")
                return
            if asyncio.get_running_loop().time() > deadline:
                raise BirdError(f"BIRD didn't open {self._control} within {PATIENCE:.0f} s")
            await asyncio.sleep(0.02)

    async def _pass_on(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self._last_words = text = line.decode(errors="replace").strip()
            log.log(logging.WARNING if "<WARN>" in text or "<ERR" in text else logging.INFO, "%s", text)

    async def _ask(self, question: str) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(str(self._control))
                try:
                    await reader.readline()  # its greeting
                    writer.write(question.encode() + b"\n")
                    reply = ""
                    while not bird_state.is_whole(reply):
                        line = await reader.readline()
                        if not line:
                            break
                        reply += line.decode(errors="replace")
                    return reply
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise BirdError(f"BIRD doesn't answer at {self._control}: {error or type(error).__name__}") from error


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
