"""Mounts of the calling process's mount namespace: made, and taken away with whatever lies under a directory."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MS_NOSUID, MS_NODEV, MS_BIND = 2, 4, 4096  # linux/mount.h
MNT_DETACH = 2
SYS_MOUNT_SETATTR = 442  # asm-generic/unistd.h, the same on every architecture

_libc = ctypes.CDLL(None, use_errno=True)


def mount_tmpfs(target: Path, *, size: str = "") -> None:
    """Mount an empty tmpfs on the directory `target`; `size` as the kernel reads it (1048576, 64m, 50%)."""
    options = f"mode=1777,size={size}" if size else "mode=1777"
    arguments = (b"tmpfs", str(target).encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())
    if _libc.mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount tmpfs on {target}: {os.strerror(number)}")


def mount_itself(target: Path) -> None:
    """Mount the directory `target` on itself: it is a mount then, which can be treated as one."""
    path = str(target).encode()
    if _libc.mount(path, path, None, MS_BIND, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target} on itself: {os.strerror(number)}")


class Enclosing(NamedTuple):
    """The mount that a path is on, and whether it tells others of mounts below it or hears of theirs."""

    point: Path
    shared: bool
    slave: bool


def enclosing(path: Path) -> Enclosing:
    """The mount that `path`, as links lead, is on. See mount_namespaces(7)."""
    real, found = path.resolve(), Enclosing(Path("/"), shared=False, slave=False)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.partition(" - ")[0].split()
        point = Path(_unescaped(fields[4]))
        if real.is_relative_to(point) and len(point.parts) >= len(found.point.parts):  # of several, the last one
            tags = [tag.partition(":")[0] for tag in fields[6:]]
            found = Enclosing(point, "shared" in tags, "master" in tags)
    return found


def can_make_all_read_only() -> bool:
    """Whether the kernel changes mounts with all that are below them: mount_setattr(2), from Linux 5.12."""
    ctypes.set_errno(0)
    _libc.syscall(SYS_MOUNT_SETATTR, -1, b"", 0, None, 0)
    return ctypes.get_errno() != errno.ENOSYS


def _unescaped(text: str) -> str:
    """Spaces and the like are octal escapes."""
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")


def mount_points(under: Path) -> list[Path]:
    """Every mount point at or below `under`, the deepest and newest first: the order to unmount in."""
    prefix = str(under).rstrip("/")
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Fields: id, parent, device, root, mount point.
        point = _unescaped(line.split()[4])
        if point == prefix or point.startswith(prefix + "/"):
            found.append(Path(point))
    return found[::-1]


def unmount_all(under: Path) -> None:
    """Unmount, lazily, everything at or below `under`."""
    for point in mount_points(under):
        _libc.umount2(str(point).encode(), MNT_DETACH)


def mount_overlay(target: Path, *, lower: Sequence[Path], upper: Path, work: Path) -> None:
    """Mount the directories `lower`, the topmost first, with what is written going to `upper`.

    They are named by descriptors: the options of a mount have one page, and paths may hold its separators.
    """
    opened = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in (*lower, upper, work)]
    try:
        *below, above, working = (f"/proc/self/fd/{descriptor}" for descriptor in opened)
        options = f"lowerdir={':'.join(below)},upperdir={above},workdir={working}"
        if _libc.mount(b"overlay", str(target).encode(), b"overlay", 0, options.encode()) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"mount overlay on {target}: {os.strerror(number)}")
    finally:
        for descriptor in opened:
            os.close(descriptor)
