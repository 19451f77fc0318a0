"""Manifests: what a registry or an OCI archive says an image is made of, and which of an index fits. Pure."""

from __future__ import annotations

import msgspec

from kubesvc.node.images.image import ImageError, check_digest

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ACCEPTED = (*INDEXES, *MANIFESTS)


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """Content named by its digest. `size` in bytes."""

    digest: str
    size: int = 0
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True):
    config: Descriptor
    layers: list[Descriptor]


class Index(msgspec.Struct, frozen=True):
    manifests: list[Descriptor]


class _Kind(msgspec.Struct, rename="camel"):
    media_type: str = ""
    schema_version: int = 2
    manifests: msgspec.Raw = msgspec.Raw(b"")


def decode(body: bytes, what: str) -> Manifest | Index:
    """`what` is named in the error. Raises ImageError."""
    try:
        kind = msgspec.json.decode(body, type=_Kind)
        if kind.schema_version == 1:
            raise ImageError(f"{what} is in Docker's schema 1, which nobody makes any more: push it again")
        if kind.media_type in INDEXES or bytes(kind.manifests):
            found = msgspec.json.decode(body, type=Index)
            for descriptor in found.manifests:
                check_digest(descriptor.digest)
            return found
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as error:
        raise ImageError(f"the manifest of {what} can't be read: {error}") from error
    for descriptor in (manifest.config, *manifest.layers):
        check_digest(descriptor.digest)
    return manifest


def choose(index: Index, architecture: str, what: str) -> Descriptor:
    """The manifest for linux on `architecture`, as Go names it. Raises ImageError."""
    usable = [d for d in index.manifests if d.media_type in ("", *ACCEPTED)]
    for descriptor in usable:
        platform = descriptor.platform
        if platform is not None and (platform.os, platform.architecture) == ("linux", architecture):
            return descriptor
    if len(usable) == 1 and usable[0].platform is None:
        return usable[0]
    have = ", ".join(sorted({f"{d.platform.os}/{d.platform.architecture}" for d in usable if d.platform})) or "none"
    raise ImageError(f"{what}: no match for platform in manifest: expected linux/{architecture}, there are {have}")
