"""Attaching to a running container: its own stdin, stdout and stderr, by way of conmon.

    client ◄─channels─► here ◄─ BUNDLE/attach, a seqpacket socket ─► conmon ◄──► the container's first process
                             ── BUNDLE/ctl, a fifo: "1 ROWS COLUMNS" ─►

A packet from conmon is one byte, 2 for stdout or 3 for stderr, and output; to conmon, stdin and nothing else. What was
printed before is in the log, not here. Any number of clients may be attached.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

from kubesvc.node import channels
from kubesvc.node.channels import EndOfInput, Input, Resize
from kubesvc.node.clients import Client, Wanted

PACKET = 1 << 14  # bytes: conmon's are 8193 at most
STDIN_PIECE = 1 << 13
WINDOW_SIZE = 1  # a message of conmon's ctl fifo
PACE = 0.05  # seconds: of two sizes that come together, conmon 2.1.6 takes the first and drops the second
_CHANNELS = {2: channels.STDOUT, 3: channels.STDERR}


async def serve(client: Client, bundle: Path, wanted: Wanted) -> bytes:
    """Until the container ends (its exit code is in the pod's status, not here) or the client goes; a Status."""
    try:
        console = await _connect(bundle)
    except (FileNotFoundError, ConnectionRefusedError):  # since it was found running
        return channels.internal_error("unable to attach: the container has ended; `kubectl logs` has what it printed")
    except OSError as error:
        return channels.internal_error(f"unable to attach: {error}")
    window = _Window(bundle)
    inputs = asyncio.ensure_future(_inputs(client, console, window, wanted))
    outputs = asyncio.ensure_future(_outputs(client, console, wanted))
    try:
        await asyncio.wait((inputs, outputs), return_when=asyncio.FIRST_COMPLETED)
        if not outputs.done() and not client.gone:
            await asyncio.wait((outputs,))
        return channels.final_status(0)
    finally:
        for task in (inputs, outputs):
            task.cancel()
        await asyncio.gather(inputs, outputs, window.close(), return_exceptions=True)
        console.close()


async def _connect(bundle: Path) -> socket.socket:
    """Raises OSError. By the directory's descriptor: the path itself may be longer than a socket's name."""
    console = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    console.setblocking(False)
    folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await asyncio.get_running_loop().sock_connect(console, f"/proc/self/fd/{folder}/attach")
    except BaseException:
        console.close()
        raise
    finally:
        os.close(folder)
    return console


async def _inputs(client: Client, console: socket.socket, window: _Window, wanted: Wanted) -> None:
    loop = asyncio.get_running_loop()
    while (asked := await client.receive()) is not None:
        with suppress(OSError):
            match asked:
                case Input(data) if wanted.stdin:
                    for at in range(0, len(data), STDIN_PIECE):
                        await loop.sock_sendall(console, data[at : at + STDIN_PIECE])
                case EndOfInput() if wanted.stdin:
                    console.shutdown(socket.SHUT_WR)
                case Resize(width, height) if wanted.tty:
                    window.resize(width, height)


async def _outputs(client: Client, console: socket.socket, wanted: Wanted) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while packet := await loop.sock_recv(console, PACKET):
            channel = _CHANNELS.get(packet[0])
            asked = wanted.stdout if channel == channels.STDOUT else wanted.stderr
            if channel is not None and asked:
                await client.send(channel, packet[1:])


class _Window:
    """The size of the container's terminal, told to conmon: the newest, and not too often."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._wanted: tuple[int, int] | None = None  # not told yet
        self._telling: asyncio.Task[None] | None = None

    def resize(self, width: int, height: int) -> None:
        self._wanted = (width, height)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait((self._telling,))

    async def _tell(self) -> None:
        while self._wanted is not None:
            (width, height), self._wanted = self._wanted, None
            with suppress(OSError):  # conmon isn't there to read it
                fifo = os.open(self._bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    os.write(fifo, b"%d %d %d\n" % (WINDOW_SIZE, height, width))
                finally:
                    os.close(fifo)
            await asyncio.sleep(PACE)
