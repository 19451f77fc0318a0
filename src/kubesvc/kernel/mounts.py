"""Mounts of the calling process's mount namespace: made, and taken away with whatever lies under a directory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

MS_NOSUID, MS_NODEV = 2, 4  # linux/mount.h
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def mount_tmpfs(target: Path, *, size: str = "") -> None:
    """Mount an empty tmpfs on the directory `target`; `size` as the kernel reads it (1048576, 64m, 50%)."""
    options = f"mode=1777,size={size}" if size else "mode=1777"
    arguments = (b"tmpfs", str(target).encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())
    if _libc.mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount tmpfs on {target}: {os.strerror(number)}")


def mount_points(under: Path) -> list[Path]:
    """Every mount point at or below `under`, the deepest and newest first: the order to unmount in."""
    prefix = str(under).rstrip("/")
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Fields: id, parent, device, root, mount point (spaces and the like as octal escapes).
        point = line.split()[4].encode().decode("unicode_escape")
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
