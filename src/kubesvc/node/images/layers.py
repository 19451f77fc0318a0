"""A layer, from a stream of bytes to a directory of the store, by way of the unpacking program."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from kubesvc.node.images.image import ImageError
from kubesvc.node.images.store import Store, failure, full

UNPACK = Path(__file__).with_name("unpack.py")


class _Answer(msgspec.Struct):
    digest: str = ""
    diff_id: str = ""
    size: int = 0
    error: str = ""
    errno: int = 0


async def add(store: Store, stream: AsyncIterator[bytes], *, diff_id: str, digest: str = "") -> None:
    """Unpack a layer and take it into the store once it is what it should be: `diff_id` is the digest of the archive,
    `digest` that of the stream, which may be compressed. Raises ImageError; the stream's own errors pass through."""
    try:
        with store.staging() as folder:
            root = folder / "root"
            root.mkdir(mode=0o755)
            answer = await _unpack(root, stream)
            if answer.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full(store.directory)
            if answer.error:
                raise ImageError(f"layer {digest or diff_id} can't be unpacked: {answer.error}")
            for what, expected, found in (("layer", digest, answer.digest), ("its contents", diff_id, answer.diff_id)):
                if expected and expected != found:
                    raise ImageError(f"{what} {expected} came as {found}: it was changed or cut short on the way")
            store.keep(root, diff_id, answer.size)
    except OSError as error:
        raise failure(error, store.directory) from error


async def _unpack(root: Path, stream: AsyncIterator[bytes]) -> _Answer:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-E", "-s", str(UNPACK), str(root)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said = asyncio.gather(process.stdout.read(), process.stderr.read())
    try:
        async for data in stream:
            try:
                process.stdin.write(data)
                await process.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                break  # it says why
        process.stdin.close()
        output, errors = await said
        await process.wait()
    except BaseException:
        if process.returncode is None:
            process.kill()
        said.cancel()
        await process.wait()
        raise
    try:
        return msgspec.json.decode(output, type=_Answer)
    except msgspec.DecodeError:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        return _Answer(error=last or f"the unpacking program ended with {process.returncode}")
