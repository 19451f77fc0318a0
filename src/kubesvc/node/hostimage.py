"""Image `host`: the machine's own programs, read-only, in a throw-away root. Nothing is pulled.

The root is a directory of its own for every attempt (on whatever the run directory is on, usually tmpfs): /tmp, /run,
/root and the rest are plain directories there, and go with it. /usr, /opt and what links into them are the machine's,
bound read-only, and of its /etc only what programs need to start (the loader's cache, alternatives, CA certificates,
the names of ports). Users are made up; shadow, ssh keys and the machine's own configuration stay out.
"""

from __future__ import annotations

import os
from pathlib import Path

from kubesvc.node import etc
from kubesvc.node.spec import Bind

PROGRAMS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # links into /usr, or directories of their own
TREES = ("usr", "opt")
# Certificates without the keys in /etc/ssl/private; the rest is public on any machine.
FROM_ETC = (
    "alternatives", "ca-certificates.conf", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "magic", "magic.mime", "mime.types", "protocols", "python3", "python3.11", "python3.12", "python3.13", "services",
    "ssl/certs", "ssl/openssl.cnf", "perl", "java-17-openjdk", "timezone",
)  # fmt: skip
WRITABLE = {"tmp": 0o1777, "var/tmp": 0o1777, "run": 0o755, "run/lock": 0o1777, "root": 0o700, "home": 0o755,
            "home/app": 0o755, "srv": 0o755, "mnt": 0o755, "media": 0o755, "var/log": 0o755, "var/lib": 0o755,
            "var/cache": 0o755}  # fmt: skip
MOUNT_POINTS = ("proc", "sys", "dev")


def make_root(root: Path) -> list[Bind]:
    """Fill the empty directory `root`; returns what is to be bound into it."""
    for name in MOUNT_POINTS:
        (root / name).mkdir()
    for name, mode in WRITABLE.items():
        path = root / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    os.chown(root / "home/app", 1000, 1000)
    (root / "var/run").symlink_to("/run")
    binds = []
    for name in (*TREES, *PROGRAMS):
        source = Path("/", name)
        if source.is_symlink():
            (root / name).symlink_to(os.readlink(source))
        elif source.is_dir():
            (root / name).mkdir()
            binds.append(Bind(f"/{name}", f"/{name}", read_only=True, recursive=True, all_read_only=True))
    folder = root / "etc"
    folder.mkdir()
    for name, text in (("passwd", etc.PASSWD), ("group", etc.GROUP), ("nsswitch.conf", etc.NSSWITCH)):
        (folder / name).write_text(text)
    (folder / "mtab").symlink_to("/proc/self/mounts")
    for name in FROM_ETC:
        source, target = Path("/etc", name), folder / name
        if source.is_symlink() and not source.resolve().is_relative_to("/etc"):
            target.symlink_to(source.resolve())  # into /usr, as localtime does
        elif source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            binds.append(Bind(str(source), f"/etc/{name}", read_only=True))
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
            binds.append(Bind(str(source), f"/etc/{name}", read_only=True))
    return binds
