"""From an archive into the store: what `docker save` writes, and OCI layouts in a tar; plain or compressed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from kubesvc.node.images import image as images
from kubesvc.node.images import layers, manifest, reference
from kubesvc.node.images.image import Image, ImageError, check_digest
from kubesvc.node.images.manifest import Descriptor, Index
from kubesvc.node.images.pull import architecture
from kubesvc.node.images.reference import Reference
from kubesvc.node.images.store import Store, failure
from kubesvc.node.images.unpack import GZIP, ZSTD

BLOCK = 1 << 18
NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")  # annotations, the fuller first


class _Saved(msgspec.Struct, rename="pascal"):
    """An entry of docker's manifest.json; members of the archive by name."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


async def load(store: Store, stream: IO[bytes], name: str = "") -> list[Image]:
    """Every image of an archive, under the names it gives, or under `name`. Raises ImageError."""
    with store.staging() as folder:
        try:
            await asyncio.to_thread(_plain, stream, folder / "archive")
            with tarfile.open(folder / "archive", mode="r:") as tar:
                return await _Archive(store, tar, name).load()
        except (tarfile.TarError, EOFError) as error:
            raise ImageError(f"not an archive of images: {error}; expected docker save's, or an OCI layout") from error
        except OSError as error:
            raise failure(error, store.directory) from error


def _plain(stream: IO[bytes], target: Path) -> None:
    """A copy without compression, in which one can seek."""
    head = stream.read(4)
    with target.open("wb") as out:
        if head.startswith(ZSTD):
            try:
                program = subprocess.Popen(["zstd", "-dcq"], stdin=subprocess.PIPE, stdout=out)
            except FileNotFoundError as error:
                raise ImageError("the archive is Zstandard, and zstd is not installed: apt install zstd") from error
            assert program.stdin is not None
            with program.stdin as pipe:
                pipe.write(head)
                shutil.copyfileobj(stream, pipe, BLOCK)
            if program.wait() != 0:
                raise ImageError("the archive can't be decompressed: zstd says that it is damaged")
            return
        whole = _Joined(head, stream)
        plain = gzip.GzipFile(fileobj=cast("IO[bytes]", whole)) if head.startswith(GZIP) else whole
        shutil.copyfileobj(cast("IO[bytes]", plain), out, BLOCK)


class _Joined:
    """What was read of a stream already, and the rest."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head[:size] if size >= 0 else self._head, b"" if size < 0 else self._head[size:]
        return head + self._rest.read(max(0, size - len(head)) if size >= 0 else -1)


class _Archive:
    def __init__(self, store: Store, tar: tarfile.TarFile, name: str) -> None:
        self._store, self._tar, self._name = store, tar, name
        self._members = {member.name.removeprefix("./"): member for member in tar.getmembers()}

    async def load(self) -> list[Image]:
        if "manifest.json" in self._members:
            saved = self._decode("manifest.json", list[_Saved])
            return [await self._docker(entry) for entry in saved]
        if "index.json" in self._members:
            index = self._decode("index.json", Index)
            return [await self._oci(descriptor) for descriptor in index.manifests]
        raise ImageError("not an archive of images: expected manifest.json (docker save) or index.json (an OCI layout)")

    async def _docker(self, saved: _Saved) -> Image:
        body = self._read(saved.config)
        image = images.decode(body, f"sha256:{hashlib.sha256(body).hexdigest()}")
        if len(saved.layers) != len(image.layers):
            raise ImageError(f"{saved.config}: {len(saved.layers)} layers, expected {len(image.layers)}")
        for member, diff_id in zip(saved.layers, image.layers, strict=True):
            await self._layer(member, diff_id, "")
        return self._add(image, list(saved.repo_tags or []))

    async def _oci(self, descriptor: Descriptor) -> Image:
        annotations = descriptor.annotations or {}
        names = [annotations[key] for key in NAMES if key in annotations][:1]
        found = manifest.decode(self._blob(descriptor.digest), descriptor.digest)
        while isinstance(found, Index):
            descriptor = manifest.choose(found, architecture(), descriptor.digest)
            found = manifest.decode(self._blob(descriptor.digest), descriptor.digest)
        image = images.decode(self._blob(found.config.digest), found.config.digest)
        if len(found.layers) != len(image.layers):
            raise ImageError(f"{descriptor.digest}: {len(found.layers)} layers, expected {len(image.layers)}")
        for layer, diff_id in zip(found.layers, image.layers, strict=True):
            await self._layer(_path(layer.digest), diff_id, layer.digest)
        return self._add(image, names)

    def _add(self, image: Image, names: list[str]) -> Image:
        wanted: list[Reference | None] = []
        for name in [self._name] if self._name else names:
            try:
                wanted.append(reference.parse(name))
            except ValueError:
                continue  # a bare tag, as some tools write into an OCI layout
        if not wanted:
            raise ImageError("the archive doesn't say what its image is called: give it with `--tag NAME`")
        for one in wanted:
            image = self._store.add(image, one)
        return image

    async def _layer(self, member: str, diff_id: str, digest: str) -> None:
        async with self._store.making(diff_id):
            if not self._store.has_layer(diff_id):
                await layers.add(self._store, self._blocks(member), diff_id=diff_id, digest=digest)

    async def _blocks(self, member: str) -> AsyncIterator[bytes]:
        with self._open(member) as stream:
            while data := stream.read(BLOCK):
                yield data

    def _blob(self, digest: str) -> bytes:
        body = self._read(_path(digest))
        if (found := f"sha256:{hashlib.sha256(body).hexdigest()}") != digest:
            raise ImageError(f"blob {digest} of the archive is {found}: it was changed")
        return body

    def _decode(self, member: str, view: Any) -> Any:
        try:
            return msgspec.json.decode(self._read(member), type=view)
        except msgspec.DecodeError as error:
            raise ImageError(f"{member} of the archive can't be read: {error}") from error

    def _read(self, member: str) -> bytes:
        with self._open(member) as stream:
            return stream.read()

    @contextmanager
    def _open(self, member: str) -> Iterator[IO[bytes]]:
        try:
            stream = self._tar.extractfile(self._members[member])
        except KeyError as error:
            raise ImageError(f"the archive has no {member}: it is incomplete") from error
        if stream is None:
            raise ImageError(f"{member} of the archive is not a file")
        with stream:
            yield stream


def _path(digest: str) -> str:
    return "blobs/" + check_digest(digest).replace(":", "/")
