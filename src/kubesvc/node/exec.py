"""A command in a running container, joined to its client: pipes, or a terminal of ours.

client ◄─channels─► here ◄─pipes or pty─► runc exec ◄──► the command
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kubesvc.kernel.descriptors import readable, writable
from kubesvc.node import channels
from kubesvc.node.channels import EndOfInput, Input, Resize
from kubesvc.node.clients import Client, Wanted
from kubesvc.node.runtime import SEARCH, Runtime

BLOCK = 1 << 15
GRACE = 5.0  # seconds for a command whose client has gone
STILL = 1.0  # seconds without output after the end of a command, until it is over


async def serve(client: Client, runtime: Runtime, id_: str, command: Sequence[str], wanted: Wanted) -> bytes:
    """Run the command until it ends or the client goes; how it ended, as a Status."""
    session = _Terminal(client) if wanted.tty else _Pipes(client, wanted)
    pidfile = runtime.pidfile()
    arguments = ["exec", "--pid-file", str(pidfile)] + (["-t"] if wanted.tty else [])
    try:
        process = await session.launch(runtime.command(*arguments, id_, *command))
    except OSError as error:
        return channels.internal_error(str(error))
    inputs = asyncio.ensure_future(session.inputs())
    outputs = asyncio.ensure_future(session.outputs())
    ended = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((inputs, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and client.gone:
            return channels.internal_error("the client has gone")
        await ended
        await _drained(client, outputs)
        return channels.final_status(process.returncode or 0)
    finally:
        for task in (inputs, outputs, ended):
            task.cancel()
        await asyncio.gather(inputs, outputs, ended, return_exceptions=True)
        session.close()
        if process.returncode is None:
            # Not awaited: this may be a cancellation, and the command's end may take a while.
            task = asyncio.get_running_loop().create_task(_end(process, pidfile))
            _ending.add(task)
            task.add_done_callback(_ending.discard)
        else:
            pidfile.unlink(missing_ok=True)


_ending: set[asyncio.Task[None]] = set()


async def _end(process: asyncio.subprocess.Process, pidfile: Path) -> None:
    """Nobody wants the command any more: SIGTERM, which the runtime passes on, and SIGKILL for what stays."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        with suppress(OSError, ValueError):
            os.kill(int(pidfile.read_text()), signal.SIGKILL)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    finally:
        pidfile.unlink(missing_ok=True)


async def _drained(client: Client, outputs: asyncio.Future[None]) -> None:
    """All output is sent; or a child of the command holds the pipes open, and nothing more is printed."""
    while not outputs.done():
        before = client.sent
        await asyncio.wait((outputs,), timeout=STILL)
        if client.sent == before and not client.sending:
            return


class _Pipes:
    """stdin, stdout and stderr apart."""

    def __init__(self, client: Client, wanted: Wanted) -> None:
        self._client, self._wanted = client, wanted
        self._process: asyncio.subprocess.Process | None = None

    async def launch(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *command,
            env={"PATH": SEARCH},
            stdin=pipe if self._wanted.stdin else nothing,
            stdout=pipe if self._wanted.stdout else nothing,
            stderr=pipe if self._wanted.stderr else nothing,
            start_new_session=True,
        )
        return self._process

    async def inputs(self) -> None:
        assert self._process is not None
        stdin = self._process.stdin
        while (asked := await self._client.receive()) is not None:
            if stdin is None:
                continue
            with suppress(ConnectionError):
                match asked:
                    case Input(data):
                        stdin.write(data)
                        await stdin.drain()
                    case EndOfInput():
                        stdin.close()

    async def outputs(self) -> None:
        assert self._process is not None
        pairs = ((channels.STDOUT, self._process.stdout), (channels.STDERR, self._process.stderr))
        await asyncio.gather(*(self._copy(channel, reader) for channel, reader in pairs if reader is not None))

    async def _copy(self, channel: int, reader: asyncio.StreamReader) -> None:
        while block := await reader.read(BLOCK):
            await self._client.send(channel, block)

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


class _Terminal:
    """A pty: the runtime makes the container's own terminal and copies between the two."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._master = -1
        self._process: asyncio.subprocess.Process | None = None

    async def launch(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        self._master, slave = pty.openpty()
        self._resize(80, 24)
        os.set_blocking(self._master, False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env={"PATH": SEARCH, "TERM": "xterm"},
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
            return self._process
        finally:
            os.close(slave)

    def _resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if self._process is not None:
            # The terminal controls nobody, so the kernel tells nobody: the runtime passes the new size on when told.
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGWINCH)

    async def inputs(self) -> None:
        while (asked := await self._client.receive()) is not None:
            match asked:
                case Input(data):
                    while data:
                        try:
                            data = data[os.write(self._master, data) :]
                        except BlockingIOError:
                            await writable(self._master)
                case Resize(width, height):
                    self._resize(width, height)
                case EndOfInput():
                    os.write(self._master, b"\x04")

    async def outputs(self) -> None:
        while True:
            try:
                block = os.read(self._master, BLOCK)
            except BlockingIOError:
                await readable(self._master)
                continue
            except OSError:  # EIO: the other side is closed
                return
            if not block:
                return
            await self._client.send(channels.STDOUT, block)

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
