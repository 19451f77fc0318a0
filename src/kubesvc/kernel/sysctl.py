"""Sysctls of the network namespace the calling thread is in: read, and written only where they differ."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)

_NET = Path("/proc/sys/net")


def read(name: str) -> str | None:
    """The value of `name`, a path below net/ ("ipv4/ip_forward"); None when the kernel has none."""
    try:
        return (_NET / name).read_text().strip()
    except OSError:
        return None


def ensure(name: str, value: str) -> bool:
    """Make `name` be `value`. False, with a warning in the log, when that isn't possible: never an exception, since
    what is asked for may already hold in another way."""
    before = read(name)
    if before == value:
        return True
    try:
        (_NET / name).write_text(value)
    except OSError as error:
        log.warning("net/%s is %s, should be %s, and can't be set: %s", name, before or "missing", value, error)
        return False
    return True


def ensure_at_least(name: str, value: int) -> bool:
    """`ensure`, unless it is more already."""
    before = read(name)
    if before is not None and before.isdecimal() and int(before) >= value:
        return True
    return ensure(name, str(value))


def ensure_each(pattern: str, value: str) -> None:
    """`ensure` for every name that matches a glob below net/ ("ipv4/conf/*/send_redirects")."""
    for path in sorted(_NET.glob(pattern)):
        ensure(str(path.relative_to(_NET)), value)
