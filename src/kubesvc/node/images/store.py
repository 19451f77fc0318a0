"""Images on disk, by content: every layer once, however many images, pods and nodes use it.

DIRECTORY/
  images/HEX.json      an image (image.py): its names, its layers, how it is started
  layers/HEX/          a layer, unpacked; HEX is the digest of its uncompressed archive; read-only by agreement
  sizes/HEX            the bytes in it
  staging/             what is being made; swept by whoever opens the store next
  lock, locks/HEX      held while images are changed; while a layer is made

Several processes use one store: agents of all nodes of a box, and `kubesvc image`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec

from kubesvc.node import processes
from kubesvc.node.images.image import Image, ImageError, check_digest
from kubesvc.node.images.reference import Reference


def _hex(digest: str) -> str:
    return check_digest(digest).partition(":")[2]


class Store:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._images, self._layers, self._sizes = directory / "images", directory / "layers", directory / "sizes"
        self._staging, self._locks = directory / "staging", directory / "locks"

    def make(self) -> None:
        """Make sure of the directories, and sweep what killed processes left. Raises ImageError."""
        try:
            for path in (self._images, self._layers, self._sizes, self._staging, self._locks):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._staging.iterdir():
                pid, start = (int(part) for part in path.name.split("-")[:2])
                if processes.start_time(pid) != start:
                    shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError) as error:
            raise failure(error, self.directory) from error

    # ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def list(self) -> list[Image]:
        """Every image, by name."""
        found = [image for path in self._images.glob("*.json") if (image := _load(path)) is not None]
        return sorted(found, key=lambda image: (not image.names, image.names, image.id))

    def find(self, reference: Reference) -> Image | None:
        """The image of that name, whole; None when it, or a layer of it, isn't here."""
        by_digest = f"{reference.name}@{reference.digest}"
        for image in self.list():
            fits = by_digest in image.digests if reference.digest else reference.tagged in image.names
            if fits and self.complete(image):
                return image
        return None

    def by_id(self, prefix: str) -> Image | None:
        """The one image whose id begins so, with or without `sha256:`."""
        short = prefix.removeprefix("sha256:")
        fits = [i for i in self.list() if len(short) >= 6 and i.id.removeprefix("sha256:").startswith(short)]
        return fits[0] if len(fits) == 1 else None

    def complete(self, image: Image) -> bool:
        return all(self.has_layer(layer) for layer in image.layers)

    def add(self, image: Image, reference: Reference | None, digest: str = "") -> Image:
        """Record the image under a name, which another may have had, and its digest there. Raises ImageError."""
        with self.locked():
            known = _load(self._images / f"{_hex(image.id)}.json")
            names = known.names if known else ()
            digests = known.digests if known else ()
            if reference is not None and reference.tagged:
                names = tuple(dict.fromkeys((*names, reference.tagged)))
            if reference is not None and digest:
                digests = tuple(dict.fromkeys((f"{reference.name}@{digest}", *digests)))
            whole = msgspec.structs.replace(
                image, names=names, digests=digests, size=sum(self._size(layer) for layer in image.layers)
            )
            for other in self.list():
                if other.id != whole.id and set(other.names) & set(names):
                    self._save(msgspec.structs.replace(other, names=tuple(n for n in other.names if n not in names)))
            self._save(whole)
            return whole

    def remove(self, image: Image, name: str, in_use: Callable[[], set[str]]) -> bool:
        """Take the name away, and the image with the last one: True. `in_use` gives the ids of images that containers
        run of. Raises ImageError for one of those."""
        with self.locked():
            left = tuple(known for known in image.names if known != name) if name else ()
            if left:
                self._save(msgspec.structs.replace(image, names=left))
                return False
            if image.id in in_use():
                raise ImageError(f"image {name or image.id} is in use by a container: delete its pod first")
            (self._images / f"{_hex(image.id)}.json").unlink(missing_ok=True)
            needed = {layer for other in self.list() for layer in other.layers}
            for layer in set(image.layers) - needed:
                self._discard(layer)
            return True

    def _discard(self, layer: str) -> None:
        with self.staging() as going:
            with suppress(FileNotFoundError):
                self.layer(layer).rename(going / "layer")
            (self._sizes / _hex(layer)).unlink(missing_ok=True)

    def _save(self, image: Image) -> None:
        try:
            path = self._images / f"{_hex(image.id)}.json"
            part = path.with_suffix(".new")
            part.write_bytes(msgspec.json.encode(image))
            part.replace(path)
        except OSError as error:
            raise failure(error, self.directory) from error

    # ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def layer(self, diff_id: str) -> Path:
        return self._layers / _hex(diff_id)

    def has_layer(self, diff_id: str) -> bool:
        return self.layer(diff_id).is_dir()

    def _size(self, diff_id: str) -> int:
        try:
            return int((self._sizes / _hex(diff_id)).read_text())
        except (OSError, ValueError):
            return 0

    def keep(self, made: Path, diff_id: str, size: int) -> None:
        """Take a directory in as the layer `diff_id`; one that is there already stays."""
        (self._sizes / _hex(diff_id)).write_text(str(size))
        try:
            made.rename(self.layer(diff_id))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A directory for what is being made; gone afterwards."""
        pid = os.getpid()
        path = self._staging / f"{pid}-{processes.start_time(pid)}-{secrets.token_hex(6)}"
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    # ── one at a time ────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Images are changed by one process at a time."""
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @asynccontextmanager
    async def making(self, diff_id: str) -> AsyncIterator[None]:
        """A layer is made by one at a time: who waited finds it made."""
        with (self._locks / _hex(diff_id)).open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.1)
            yield


def failure(error: Exception, directory: Path) -> ImageError:
    """An error of the disk, in words that say what to do."""
    number = getattr(error, "errno", 0)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return full(directory)
    if number in (errno.EACCES, errno.EPERM):
        return ImageError(f"images can't be kept in {directory}: {error}; expected to run as root")
    return ImageError(f"images can't be kept in {directory}: {error}")


def full(directory: Path) -> ImageError:
    try:
        free = f"{shutil.disk_usage(directory).free >> 20} MiB are free"
    except OSError:
        free = "nothing is free"
    return ImageError(
        f"no space left on device: {free} in {directory}; make room, or remove images with `kubesvc image remove`"
    )


def _load(path: Path) -> Image | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Image)
    except (OSError, msgspec.DecodeError):
        return None
