"""Network namespaces: made, named by a bind mount as `ip netns` does, entered, and used to open sockets in.

A network namespace belongs to a *thread*: `entered` switches the calling thread and switches back, so it must not be
held across an `await`. A socket stays in the namespace it was made in, wherever its owner goes.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubesvc.kernel import turns

NAMED = Path("/run/netns")  # where iproute2 looks

CLONE_NEWNET = 0x40000000  # linux/sched.h
MS_BIND = 4096  # linux/mount.h
MS_REC = 16384
MS_SHARED = 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _bind(source: str, target: str) -> None:
    _check(_libc.mount(source.encode(), target.encode(), b"none", MS_BIND, None), f"bind {source} on {target}")


def _share_named_directory() -> None:
    """What `ip netns` does on first use: /run/netns is a shared mount, so that unmounting reaches every copy."""
    NAMED.mkdir(parents=True, exist_ok=True)
    with turns.alone(NAMED):  # two that bind it at once would hide what the first has pinned there
        if _libc.mount(b"", str(NAMED).encode(), b"none", MS_SHARED | MS_REC, None) != 0:
            _bind(str(NAMED), str(NAMED))
            _check(_libc.mount(b"", str(NAMED).encode(), b"none", MS_SHARED | MS_REC, None), f"share {NAMED}")


@contextmanager
def entered(path: Path | str | int) -> Iterator[None]:
    """Run the calling thread inside the namespace at `path` (or an open descriptor of one)."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = path if isinstance(path, int) else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(target, CLONE_NEWNET), f"enter {path}")
        finally:
            if not isinstance(path, int):
                os.close(target)
        try:
            yield
        finally:
            _check(_libc.setns(before, CLONE_NEWNET), "return to the namespace before")
    finally:
        os.close(before)


def enter(path: Path | str | int) -> None:
    """Move the calling thread into the namespace for good: for a process that lives there, before it makes threads."""
    target = path if isinstance(path, int) else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(target, CLONE_NEWNET), f"enter {path}")
    finally:
        if not isinstance(path, int):
            os.close(target)


def create(path: Path) -> bool:
    """Make a namespace and pin it at `path` by a bind mount; False when one is there already."""
    if is_namespace(path):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o444, exist_ok=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(CLONE_NEWNET), "make a network namespace")
        try:
            _bind("/proc/thread-self/ns/net", str(path))
        finally:
            _check(_libc.setns(before, CLONE_NEWNET), "return to the namespace before")
    finally:
        os.close(before)
    return True


def is_namespace(path: Path) -> bool:
    """Whether a namespace is pinned at `path` (a plain file, left by a reboot, is not one)."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False


def delete(path: Path) -> None:
    """Unpin the namespace at `path`; it goes with its links once nothing lives in it. Missing is fine."""
    while is_namespace(path) and _libc.umount2(str(path).encode(), MNT_DETACH) == 0:
        pass
    with suppress(FileNotFoundError):
        path.unlink()


def named(name: str) -> Path:
    """The path of a namespace that `ip netns` lists as `name`."""
    return NAMED / name


def create_named(name: str) -> Path:
    """Make (or find) the namespace that `ip netns` lists as `name`; returns its path."""
    _share_named_directory()
    path = named(name)
    create(path)
    return path


def socket_in(
    path: Path | str | int, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
) -> socket.socket:
    """A socket that lives in the namespace at `path`, for a process that lives elsewhere."""
    with entered(path):
        return socket.socket(family, kind, protocol)


def current() -> int:
    """An open descriptor of the calling thread's namespace; the caller closes it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
