"""exec, over WebSocket: v5.channel.k8s.io, one byte of channel before each message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import BinaryIO

import msgspec

from kubesvc.client.session import Session

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, CLOSE = range(5)
CLOSED = 255


async def execute(
    session: Session, path: str, stdin: AsyncIterator[bytes] | None, out: BinaryIO, err: BinaryIO
) -> tuple[int, str]:
    """Run a command to its end: (its exit code, what kubectl says of a failure)."""
    status = b""
    async with session.websocket(path, PROTOCOL) as socket:

        async def feed(source: AsyncIterator[bytes]) -> None:
            async for data in source:
                await socket.send_bytes(bytes((STDIN,)) + data)
            await socket.send_bytes(bytes((CLOSED, STDIN)))

        feeding = asyncio.ensure_future(feed(stdin)) if stdin is not None else None
        try:
            async for message in socket:
                channel, data = message.data[0], message.data[1:]
                if channel == ERROR:
                    status += data
                elif channel in (STDOUT, STDERR):
                    target = out if channel == STDOUT else err
                    target.write(data)
                    target.flush()
        finally:
            if feeding is not None:
                feeding.cancel()
                with suppress(asyncio.CancelledError):
                    await feeding
    return _outcome(status)


def _outcome(status: bytes) -> tuple[int, str]:
    try:
        tree = msgspec.json.decode(status)
    except msgspec.DecodeError:
        return 1, "error: the connection ended before the command did"
    if tree.get("status") == "Success":
        return 0, ""
    for cause in (tree.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"]), f"command terminated with exit code {cause['message']}"
    return 1, f"error: {tree.get('message', 'the command failed')}"
