"""The kinds a server serves: those we know and, once one isn't among them, those that it tells of by discovery."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.client.session import Session
from kubesvc.kubectl import manifests
from kubesvc.kubectl.manifests import KubectlError


class Kinds:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._found: tuple[Kind, ...] = tuple(registry.KINDS.values())

    async def of(self, tree: JSON) -> Kind:
        """What an object is. Raises KubectlError."""
        try:
            return manifests.kind_of(tree, self._found)
        except KubectlError:
            return manifests.kind_of(tree, await self._more())

    async def wanted(self, words: Iterable[str]) -> list[tuple[Kind, str]]:
        """What words mean, as manifests.wanted says. Raises KubectlError."""
        words = list(words)
        try:
            return manifests.wanted(words, self._found)
        except KubectlError:
            return manifests.wanted(words, await self._more())

    async def _more(self) -> Sequence[Kind]:
        """Asked anew each time: a definition may just have been made."""
        groups = (await self._read("/apis"))["groups"]
        known = {kind.api_version for kind in registry.KINDS.values()}
        versions = [v["groupVersion"] for group in groups for v in group["versions"] if v["groupVersion"] not in known]
        lists = await asyncio.gather(*(self._read(f"/apis/{version}") for version in versions))
        more = (_kind(found["groupVersion"], one) for found in lists for one in found["resources"])
        self._found = (*registry.KINDS.values(), *(kind for kind in more if "/" not in kind.plural))
        return self._found

    async def _read(self, path: str) -> JSON:
        found: JSON = msgspec.json.decode((await self._session.raw("GET", path)).body)
        return found


def _kind(api_version: str, told: JSON) -> Kind:
    group, _, version = api_version.rpartition("/")
    return Kind(
        group,
        version,
        told["kind"],
        told["name"],
        told.get("singularName") or told["kind"].lower(),
        told["namespaced"],
        tuple(told.get("shortNames") or ()),
        tuple(told.get("categories") or ()),
    )
