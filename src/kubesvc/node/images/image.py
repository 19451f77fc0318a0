"""What an image says of itself: how its programs are started, and of which layers its root is made. Pure.

Follows the OCI image spec's configuration; Docker's is the same where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

HOST_NAME = "kubesvc/host"
_HOST_NAMES = {
    f"{prefix}{name}{tag}" for prefix in ("", "docker.io/") for name in ("host", HOST_NAME) for tag in ("", ":latest")
} | {"docker.io/library/host:latest"}


class ImageError(Exception):
    """The image can't be had. `reason` is the waiting container's: ErrImagePull, InvalidImageName, …"""

    def __init__(self, message: str, reason: str = "ErrImagePull") -> None:
        super().__init__(message)
        self.reason = reason


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image on this machine. `id` is the digest of its configuration; `layers` are the digests of their
    uncompressed contents, the lowest first; `size` is what they take on disk, in bytes."""

    id: str
    names: tuple[str, ...] = ()  # REGISTRY/REPOSITORY:TAG
    digests: tuple[str, ...] = ()  # REGISTRY/REPOSITORY@DIGEST, as pulled
    layers: tuple[str, ...] = ()
    size: int = 0
    created: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()  # NAME=VALUE
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""

    @property
    def is_host(self) -> bool:
        return self.id == HOST_NAME

    @property
    def variables(self) -> dict[str, str]:
        return dict(text.split("=", 1) for text in self.environment if "=" in text)

    @property
    def shown(self) -> str:
        """As a container's status names it: where it came from if it was pulled, else its id."""
        return self.digests[0] if self.digests else self.id


HOST = Image(id=HOST_NAME, names=(HOST_NAME,), environment=("HOME=/root",))
"""The machine's own programs in a throw-away root."""


def is_host(name: str) -> bool:
    return name in _HOST_NAMES


class _Execution(msgspec.Struct, rename="pascal"):
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""


class _Root(msgspec.Struct):
    diff_ids: tuple[str, ...] = ()


class _Configuration(msgspec.Struct):
    rootfs: _Root
    config: _Execution | None = None
    os: str = "linux"
    created: str | None = None


def decode(configuration: bytes, id_: str) -> Image:
    """The image of an encoded configuration. Raises ImageError."""
    try:
        found = msgspec.json.decode(configuration, type=_Configuration)
    except msgspec.DecodeError as error:
        raise ImageError(f"image configuration {id_} can't be read: {error}") from error
    if found.os not in ("", "linux"):
        raise ImageError(f"image {id_} is for {found.os}; expected linux")
    for layer in found.rootfs.diff_ids:
        check_digest(layer)
    how = found.config or _Execution()
    return Image(
        id=id_,
        layers=found.rootfs.diff_ids,
        created=found.created or "",
        entrypoint=how.entrypoint or (),
        command=how.cmd or (),
        environment=how.env or (),
        user=how.user,
        working_dir=how.working_dir,
        stop_signal=how.stop_signal,
    )


def check_digest(text: str) -> str:
    """Digests become names of files: nothing else may. Raises ImageError."""
    algorithm, _, value = text.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ImageError(f"digest {text!r}: expected sha256 and 64 lower-case hexadecimal digits")
    return text


def command(image: Image, words: tuple[str, ...], arguments: tuple[str, ...]) -> tuple[str, ...]:
    """A container's command line: its own command or the image's entrypoint, its own args or the image's command,
    which an own command makes void. May be empty."""
    if words:
        return (*words, *arguments)
    return (*image.entrypoint, *(arguments or image.command))


def base_environment(image: Image, path: str, hostname: str) -> Mapping[str, str]:
    """What a container's own variables come on top of."""
    return {"PATH": path, "HOSTNAME": hostname} | image.variables
