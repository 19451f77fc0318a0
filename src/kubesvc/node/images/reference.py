"""An image's name, as people write it and as registries are asked for it. Pure. Distribution's reference grammar.

[REGISTRY/]REPOSITORY[:TAG][@DIGEST]        busybox -> docker.io/library/busybox:latest
"""

from __future__ import annotations

import re

import msgspec

from kubesvc.api import names

DEFAULT_REGISTRY = "docker.io"
_HOSTS = {DEFAULT_REGISTRY: "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_REGISTRY = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Reference(msgspec.Struct, frozen=True):
    """`tag` or `digest` may be empty, not both; with both, the digest decides what it is."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    @property
    def which(self) -> str:
        """What a registry is asked for."""
        return self.digest or self.tag

    @property
    def tagged(self) -> str:
        """The name an image is known by; "" when only a digest was given."""
        return f"{self.name}:{self.tag}" if self.tag else ""

    @property
    def host(self) -> str:
        """Where the registry answers: HOST[:PORT]."""
        return _HOSTS.get(self.registry, self.registry)

    @property
    def is_local(self) -> bool:
        """On this machine: such a registry may speak plain HTTP."""
        host = self.host.rpartition(":")[0] if re.search(r":[0-9]+$", self.host) else self.host
        return names.is_loopback(host)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Raises ValueError, in upstream's words."""
    rest, at, digest = text.partition("@")
    registry, repository = DEFAULT_REGISTRY, rest
    first, slash, others = rest.partition("/")
    if slash and (set(first) & set(".:") or first == "localhost" or first != first.lower()):
        registry, repository = first, others
    repository, colon, tag = repository.partition(":")
    if registry in _HOSTS:
        registry = DEFAULT_REGISTRY
        repository = repository if "/" in repository else f"library/{repository}"
    fits = _REGISTRY.fullmatch(registry) and _REPOSITORY.fullmatch(repository)
    if not fits or (colon and not _TAG.fullmatch(tag)) or (at and not _DIGEST.fullmatch(digest)):
        raise ValueError(f'couldn\'t parse image name "{text}": invalid reference format')
    return Reference(registry, repository, tag or ("" if at else "latest"), digest)
