"""A command in a running container, joined to a WebSocket: pipes, or a terminal of ours.

client ◄─frames─► here ◄─pipes or pty─► runc exec ◄──► the command
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from kubesvc.kernel.descriptors import readable, writable
from kubesvc.node import channels
from kubesvc.node.channels import EndOfInput, Input, Resize
from kubesvc.node.runtime import SEARCH, Runtime

BLOCK = 1 << 15
GRACE = 5.0  # seconds for a command whose client has gone


@dataclass(frozen=True, slots=True)
class Wish:
    """What the client asked for."""

    command: Sequence[str]
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


async def serve(socket: web.WebSocketResponse, runtime: Runtime, id_: str, wish: Wish) -> None:
    """Run the command until it ends or the client goes; the last frame says how it ended."""
    session = _Terminal(socket, wish) if wish.tty else _Pipes(socket, wish)
    arguments = ["exec", "-t"] if wish.tty else ["exec"]
    try:
        process = await session.launch(runtime.command(*arguments, id_, *wish.command))
    except OSError as error:
        await _send(socket, channels.internal_error(str(error)))
        return
    # Tells the client that it is connected, as upstream does.
    await _send(socket, bytes([channels.STDOUT]))
    inputs = asyncio.ensure_future(session.inputs())
    outputs = asyncio.ensure_future(session.outputs())
    ended = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((inputs, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and socket.closed:
            with suppress(ProcessLookupError):
                process.terminate()  # the runtime passes it on to the command
            await asyncio.wait((ended,), timeout=GRACE)
            return
        await ended
        # A child of the command may hold the pipes open for long: what has been printed by now is what counts.
        await asyncio.wait((outputs,), timeout=1.0)
        await _send(socket, channels.final_status(process.returncode or 0))
    finally:
        for task in (inputs, outputs, ended):
            task.cancel()
        await asyncio.gather(inputs, outputs, ended, return_exceptions=True)
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        session.close()


async def _send(socket: web.WebSocketResponse, frame: bytes) -> None:
    if not socket.closed:
        with suppress(ConnectionError):
            await socket.send_bytes(frame)


class _Pipes:
    """stdin, stdout and stderr apart."""

    def __init__(self, socket: web.WebSocketResponse, wish: Wish) -> None:
        self._socket, self._wish = socket, wish
        self._process: asyncio.subprocess.Process | None = None

    async def launch(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *command,
            env={"PATH": SEARCH},
            stdin=pipe if self._wish.stdin else nothing,
            stdout=pipe if self._wish.stdout else nothing,
            stderr=pipe if self._wish.stderr else nothing,
            start_new_session=True,
        )
        return self._process

    async def inputs(self) -> None:
        assert self._process is not None
        stdin = self._process.stdin
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY or stdin is None:
                continue
            with suppress(ConnectionError):
                match channels.parse(message.data):
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
            await _send(self._socket, bytes([channel]) + block)

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


class _Terminal:
    """A pty: the runtime makes the container's own terminal and copies between the two."""

    def __init__(self, socket: web.WebSocketResponse, wish: Wish) -> None:
        self._socket = socket
        self._master = -1

    async def launch(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        self._master, slave = pty.openpty()
        self._resize(80, 24)
        os.set_blocking(self._master, False)
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                env={"PATH": SEARCH, "TERM": "xterm"},
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
        finally:
            os.close(slave)

    def _resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def inputs(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY:
                continue
            match channels.parse(message.data):
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
            await _send(self._socket, bytes([channels.STDOUT]) + block)

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
