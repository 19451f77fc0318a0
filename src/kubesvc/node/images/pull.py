"""From a registry into the store: the manifest, the configuration, the layers that aren't here yet."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Callable, Sequence

from kubesvc.node.images import image as images
from kubesvc.node.images import layers, manifest, registry
from kubesvc.node.images.credentials import Credentials
from kubesvc.node.images.image import Image, ImageError
from kubesvc.node.images.manifest import Descriptor, Index, Manifest
from kubesvc.node.images.reference import Reference
from kubesvc.node.images.registry import Registry, Unavailable
from kubesvc.node.images.store import Store

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
TRIES = 3
AT_ONCE = 3  # layers, as Docker

Say = Callable[[str], None]


def architecture() -> str:
    """This machine's, as Go names it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


async def pull(store: Store, reference: Reference, known: Sequence[Credentials], say: Say = lambda _: None) -> Image:
    """The image, in the store under its name. What is there already isn't fetched. Raises ImageError."""
    for left in reversed(range(TRIES)):
        try:
            async with registry.opened(reference, known) as opened:
                return await _pull(store, opened, reference, say)
        except Unavailable as error:
            if not left:
                raise
            say(f"{error}; again")
            await asyncio.sleep(0.5)
    raise AssertionError


async def _pull(store: Store, opened: Registry, reference: Reference, say: Say) -> Image:
    body, digest = await opened.manifest(reference.which)
    found: Manifest | Index = manifest.decode(body, str(reference))
    if isinstance(found, Index):
        chosen = manifest.choose(found, architecture(), str(reference))
        body, _ = await opened.manifest(chosen.digest)
        found = manifest.decode(body, str(reference))
        if isinstance(found, Index):
            raise ImageError(f"{reference}: an index within an index, expected a manifest")
    image = images.decode(await opened.small_blob(found.config), found.config.digest)
    if len(image.layers) != len(found.layers):
        raise ImageError(f"{reference}: {len(found.layers)} layers, but {len(image.layers)} digests of their contents")
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(descriptor: Descriptor, diff_id: str) -> None:
        async with slots, store.making(diff_id):
            if store.has_layer(diff_id):
                return
            say(f"{descriptor.digest[7:19]}: pulling {descriptor.size / 1e6:.1f} MB")
            stream: AsyncIterator[bytes] = opened.blob(descriptor)
            await layers.add(store, stream, diff_id=diff_id, digest=descriptor.digest)

    try:
        async with asyncio.TaskGroup() as group:
            for descriptor, diff_id in zip(found.layers, image.layers, strict=True):
                group.create_task(one(descriptor, diff_id))
    except* ImageError as several:
        raise several.exceptions[0] from None
    return await asyncio.to_thread(store.add, image, reference, digest)
