"""Which images this node can run. One for now: `host`, the machine's own programs in a throw-away root. Pure."""

from __future__ import annotations

HOST = "kubesvc/host"
_NAMES = {f"{prefix}{name}{tag}" for prefix in ("", "docker.io/") for name in ("host", HOST) for tag in ("", ":latest")}
_NAMES.add("docker.io/library/host:latest")


class ImageError(Exception):
    """The image can't be had; the message says what to do instead."""


def resolve(image: str) -> str:
    """The image's id. Raises ImageError for every image that isn't known."""
    if image in _NAMES:
        return HOST
    raise ImageError(
        f'image "{image}" is not on this node and kubesvc does not pull images yet: use `image: host`, '
        "the machine's own programs in a throw-away root (set `command`)"
    )
