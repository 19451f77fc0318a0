"""A container's root: an image's layers, shared and only read, under a directory of the container's own.

layers/HEX … (lower, read-only)  +  BUNDLE/upper (what the container writes)  =  BUNDLE/rootfs, an overlay mount
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from kubesvc.kernel import mounts
from kubesvc.node.images import accounts
from kubesvc.node.images.accounts import Account
from kubesvc.node.images.image import Image, ImageError
from kubesvc.node.images.store import Store

MARK = "image"  # a file of the bundle with the image's id: it is in use
LARGEST = 4 << 20  # bytes of passwd and group


def mount(store: Store, image: Image, bundle: Path) -> None:
    """Mount the image on `bundle`/rootfs, an empty directory; `bundle` is a container's or a volume's.

    Raises OSError, ImageError."""
    (bundle / MARK).write_text(image.id)
    if not store.complete(image):
        raise ImageError(f"image {image.shown} was removed from this node")
    upper, work = bundle / "upper", bundle / "work"
    for path in (upper, work):
        path.mkdir()
    upper.chmod(0o755)
    lower = [store.layer(layer) for layer in reversed(image.layers)]
    if not lower:
        lower = [bundle / "empty"]
        lower[0].mkdir()
    mounts.mount_overlay(bundle / "rootfs", lower=lower, upper=upper, work=work)


def in_use(run_path: Path) -> set[str]:
    """The ids of images of the containers and volumes of every node that keeps its pods below `run_path`."""
    found = set()
    for place in ("containers/*/*", "images/*"):
        for path in run_path.glob(f"*/pods/*/{place}/{MARK}"):
            with suppress(OSError):
                found.add(path.read_text())
    return found


def account(image: Image, root: Path) -> Account:
    """Who the image's programs run as. Raises ValueError for a name that isn't in it."""
    if not image.user:
        return Account()
    return accounts.resolve(image.user, _text(root, "passwd"), _text(root, "group"))


def _text(root: Path, name: str) -> str:
    """A file of the root's /etc; links, which could lead out of it, aren't followed."""
    try:
        folder = os.open(root / "etc", os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError:
        return ""
    with os.fdopen(file, "rb") as stream:
        return stream.read(LARGEST).decode(errors="replace")
