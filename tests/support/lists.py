"""An API in memory that answers lists and watches, and remembers what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from kubesvc.api.meta import Object
from kubesvc.client.transport import Request, Response


class Api:
    """`lists` maps plural -> objects, `held` plurals answer when let go; `written` has what was created or patched."""

    def __init__(self, **lists: list[Object]) -> None:
        self._lists = {"services": [], "endpointslices": [], "nodes": []} | lists
        self._events: dict[str, asyncio.Queue[bytes]] = {plural: asyncio.Queue() for plural in self._lists}
        self.held: dict[str, asyncio.Event] = {}
        self.written: list[dict[str, Any]] = []

    async def send(self, request: Request) -> Response:
        if request.method != "GET":
            self.written.append(msgspec.json.decode(request.body))
            return Response(200, request.body)
        plural = request.path.rsplit("/", 1)[-1]
        if "watch" in request.query:
            return Response(200, stream=self._stream(plural))
        if plural in self.held:
            await self.held[plural].wait()
        found = {"metadata": {"resourceVersion": "1"}, "items": self._lists[plural]}
        return Response(200, msgspec.json.encode(found))

    async def close(self) -> None:
        return None

    async def _stream(self, plural: str) -> AsyncIterator[bytes]:
        while True:
            yield await self._events[plural].get()

    def tell(self, plural: str, kind: str, *objects: Object) -> None:
        for found in objects:
            self._events[plural].put_nowait(msgspec.json.encode({"type": kind, "object": found}))
