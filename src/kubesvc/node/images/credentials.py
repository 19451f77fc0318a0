"""Who one is at a registry: Docker's configuration, Secrets for pulling, and registries' challenges. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

import msgspec

from kubesvc.api.core import Secret
from kubesvc.node.images.image import ImageError
from kubesvc.node.images.reference import DEFAULT_REGISTRY, Reference


class Credentials(msgspec.Struct, frozen=True):
    """A name and a password, or a token that is given for one."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _File(msgspec.Struct):
    auths: dict[str, _Entry] = {}


Keyring = tuple[tuple[str, Credentials], ...]
"""REGISTRY[/PATH], as Docker's configuration names it -> credentials, in the order to try."""


def decode(text: bytes | str, what: str) -> Keyring:
    """Docker's config.json, or the older .dockercfg, which is its `auths` alone. Raises ImageError."""
    try:
        tree = msgspec.json.decode(text)
        entries = tree.get("auths", {}) if isinstance(tree, dict) and "auths" in tree else tree
        whole = msgspec.convert({"auths": entries}, type=_File)
        return tuple((_place(server), _credentials(entry)) for server, entry in whole.auths.items())
    except (msgspec.DecodeError, msgspec.ValidationError, binascii.Error, ValueError) as error:
        raise ImageError(f"{what} is not a Docker configuration: {error}") from error


def of_secret(secret: Secret) -> Keyring:
    """A Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg. Raises ImageError."""
    for key in (".dockerconfigjson", ".dockercfg"):
        if key in secret.data:
            try:
                return decode(base64.b64decode(secret.data[key]), f"key {key} of Secret {secret.name}")
            except binascii.Error as error:
                raise ImageError(f"key {key} of Secret {secret.name} is not base64") from error
    raise ImageError(f"Secret {secret.name} has neither .dockerconfigjson nor .dockercfg: it can't be used to pull")


def _credentials(entry: _Entry) -> Credentials:
    if entry.auth:
        name, _, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        return Credentials(name, password.rstrip("\0"), entry.identitytoken)
    return Credentials(entry.username, entry.password, entry.identitytoken)


def _place(server: str) -> str:
    place = re.sub(r"^https?://", "", server).removesuffix("/")
    place = re.sub(r"/v[12]$", "", place)
    host, slash, path = place.partition("/")
    return (DEFAULT_REGISTRY if host in ("index.docker.io", "registry-1.docker.io") else host) + slash + path


def matching(keyring: Keyring, reference: Reference) -> list[Credentials]:
    """Those for the reference, the most particular first."""
    fits = [(p, c) for p, c in keyring if reference.name == p or reference.name.startswith(p + "/")]
    return [found for _, found in sorted(fits, key=lambda pair: -len(pair[0]))]


def challenge(header: str) -> tuple[str, Mapping[str, str]]:
    """WWW-Authenticate: (scheme in lower case, parameters)."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), {name.lower(): value for name, value in re.findall(r'(\w+)="([^"]*)"', rest)}
