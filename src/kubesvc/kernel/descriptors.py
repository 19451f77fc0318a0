"""Waiting until a file descriptor can be read or written, in an event loop: pipes, ptys, pidfds, inotify."""

from __future__ import annotations

import asyncio


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def readable(descriptor: int) -> None:
    """Wait until `descriptor` can be read; a pidfd, until its process is gone."""
    loop = asyncio.get_running_loop()
    able: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _resolve, able)
    try:
        await able
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    able: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _resolve, able)
    try:
        await able
    finally:
        loop.remove_writer(descriptor)
