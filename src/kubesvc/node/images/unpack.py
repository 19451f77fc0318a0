"""Unpack one layer from standard input into a directory: a program of its own, that sees nothing but that directory.

It has changed its root before the first entry is read: no path and no link in an archive leads out. Overlay's own
whiteouts are made of the archive's:

    .wh.NAME       -> NAME, a character device 0/0           .wh..wh..opq -> trusted.overlay.opaque on the directory

Entries that are devices are left out: /dev is the runtime's. Needs the standard library alone, so that it starts in a
few milliseconds. Usage: unpack.py DIRECTORY < layer.tar[.gz|.zst]; prints a line of JSON.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import posixpath
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
from typing import IO, Any, cast

BLOCK = 1 << 18
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
ATTRIBUTES = ("security.capability", "user.")  # the rest, and overlay's own above all, isn't the archive's to set


class Refused(Exception):
    """The layer isn't one; the message says why."""


class Measured:
    """A stream, its digest and its length; `head` was read from it already."""

    def __init__(self, stream: IO[bytes], head: bytes = b"") -> None:
        self._stream, self._head = stream, head
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"

    def read(self, size: int = -1) -> bytes:
        data = self._head[: size if size >= 0 else None]
        self._head = self._head[len(data) :]
        if size < 0 or len(data) < size:
            data += self._stream.read(size - len(data) if size >= 0 else -1)
        self._digest.update(data)
        self.size += len(data)
        return data

    def drain(self) -> None:
        while self.read(BLOCK):
            pass


def decompressed(source: Measured, head: bytes) -> IO[bytes]:
    """The archive inside: gzip and Zstandard are told by their first bytes. Raises Refused."""
    if head.startswith(GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=cast("IO[bytes]", source), mode="rb"))
    if not head.startswith(ZSTD):
        return cast("IO[bytes]", source)
    try:
        program = subprocess.Popen(["zstd", "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except FileNotFoundError as error:
        raise Refused("the layer is compressed with Zstandard, and zstd is not installed: apt install zstd") from error
    assert program.stdin is not None
    assert program.stdout is not None
    threading.Thread(target=_feed, args=(source, program.stdin), daemon=True).start()
    return program.stdout


def _feed(source: Measured, target: IO[bytes]) -> None:
    try:
        while data := source.read(BLOCK):
            target.write(data)
        target.close()
    except BrokenPipeError:
        source.drain()


class Unpacker:
    """Puts entries below `/`, which is the layer's directory by now."""

    def __init__(self) -> None:
        self._times: list[tuple[str, int]] = []  # directories, set when all is in them
        self._made: set[str] = set()
        self.size = 0

    def add(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        path = _inside(entry.name)
        folder, name = posixpath.split(path)
        if name.startswith(WHITEOUT):
            self._whiteout(folder, name)
            return
        if path == "/":
            if entry.isdir():
                self._attributes(path, entry)
            return
        os.makedirs(folder, mode=0o755, exist_ok=True)
        was_whiteout = _is_whiteout(path)
        if os.path.lexists(path) and not (entry.isdir() and stat.S_ISDIR(os.lstat(path).st_mode)):
            _remove(path)
        if entry.isdir():
            if not os.path.lexists(path):
                os.mkdir(path)
            if was_whiteout:  # a new directory in the place of one below
                os.setxattr(path, OPAQUE_ATTRIBUTE, b"y")
        elif entry.isreg():
            self._file(archive, entry, path)
        elif entry.issym():
            os.symlink(entry.linkname, path)
        elif entry.islnk():
            os.link(_inside(entry.linkname), path, follow_symlinks=False)
            return
        elif entry.isfifo():
            os.mkfifo(path)
        else:
            return
        self._made.add(path)
        self._attributes(path, entry)

    def _file(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        source = archive.extractfile(entry)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as target:
            shutil.copyfileobj(source, target, BLOCK)
        self.size += entry.size

    def _attributes(self, path: str, entry: tarfile.TarInfo) -> None:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if entry.issym():
            os.utime(path, (entry.mtime, entry.mtime), follow_symlinks=False)
            return
        os.chmod(path, entry.mode & 0o7777)
        for key, value in entry.pax_headers.items():
            name = key.removeprefix("SCHILY.xattr.")
            if name != key and name.startswith(ATTRIBUTES):
                os.setxattr(path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
        if entry.isdir():
            self._times.append((path, int(entry.mtime)))
        else:
            os.utime(path, (entry.mtime, entry.mtime))

    def _whiteout(self, folder: str, name: str) -> None:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        if name == OPAQUE:
            os.setxattr(folder, OPAQUE_ATTRIBUTE, b"y")
            return
        target = posixpath.join(folder, name.removeprefix(WHITEOUT))
        if name.startswith(WHITEOUT * 2) or target.rstrip("/") == folder:
            return  # aufs' own files
        if not os.path.lexists(target):
            os.mknod(target, stat.S_IFCHR | 0o000, os.makedev(0, 0))
        elif stat.S_ISDIR(os.lstat(target).st_mode):
            os.setxattr(target, OPAQUE_ATTRIBUTE, b"y")  # what the layer itself put there stays

    def finish(self) -> None:
        for path, when in reversed(self._times):
            os.utime(path, (when, when))


def _inside(name: str) -> str:
    """The entry's path below the root. Raises Refused for one that leaves it."""
    if ".." in name.split("/"):
        raise Refused(f"the layer has an entry outside of its root: {name!r}")
    return posixpath.normpath("/" + name.lstrip("/"))


def _is_whiteout(path: str) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _remove(path: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def unpack(directory: str, stream: IO[bytes]) -> dict[str, Any]:
    """Raises Refused, OSError, tarfile.TarError. The calling process is inside `directory` afterwards."""
    head = stream.read(4)
    source = Measured(stream, head)
    plain = decompressed(source, head)
    inner = Measured(plain)
    os.chroot(directory)
    os.chdir("/")
    unpacker = Unpacker()
    with tarfile.open(
        fileobj=cast("IO[bytes]", inner), mode="r|", encoding="utf-8", errors="surrogateescape", bufsize=BLOCK
    ) as archive:
        for entry in archive:
            unpacker.add(archive, entry)
    inner.drain()
    if plain is not cast("IO[bytes]", source):
        source.drain()
    unpacker.finish()
    return {"digest": source.digest, "diff_id": inner.digest, "size": unpacker.size}


def main() -> None:
    os.umask(0)
    try:
        print(json.dumps(unpack(sys.argv[1], sys.stdin.buffer)))  # noqa: T201
    except (Refused, OSError, EOFError, tarfile.TarError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        number = error.errno if isinstance(error, OSError) else 0
        print(json.dumps({"error": str(error) or type(error).__name__, "errno": number or 0}))  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
