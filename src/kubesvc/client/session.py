"""A session with the API: the verbs, as coroutines, over a transport.

Objects go in as JSON trees and come back as JSON trees; `read` and `list` also decode straight into a typed view.
Every failure is an `ApiError` (the server said no) or `Unreachable` (nobody answered).
"""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

import aiohttp
import msgspec

from kubesvc.api.errors import ApiError, from_status
from kubesvc.api.meta import JSON, ListMeta, Object
from kubesvc.api.registry import Kind
from kubesvc.client.transport import HttpTransport, Request, Response, Transport

T = TypeVar("T", bound=Object)

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class Unreachable(Exception):
    """Nobody answered: refused, timed out, reset or not TLS. Retry."""


class ObjectList(msgspec.Struct, Generic[T], frozen=True):
    """A typed list and the revision to watch from."""

    metadata: ListMeta
    items: list[T] = []

    @property
    def resource_version(self) -> str:
        return self.metadata.resource_version


class RawList(msgspec.Struct, frozen=True):
    """A list whose items are still encoded, for who decodes one at a time."""

    metadata: ListMeta
    items: list[msgspec.Raw] = []


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch; `object` is still encoded. type: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: msgspec.Raw


_event_decoder = msgspec.json.Decoder(WatchEvent)
_raw_decoder = msgspec.json.Decoder(RawList)
_list_decoders: dict[type[Object], msgspec.json.Decoder[Any]] = {}


def _decode_list(view: type[T], body: bytes) -> ObjectList[T]:
    decoder = _list_decoders.get(view)
    if decoder is None:
        decoder = _list_decoders[view] = msgspec.json.Decoder(ObjectList[view])  # type: ignore[valid-type]
    with collector_paused():
        found: ObjectList[T] = decoder.decode(body)
    return found


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cycle collection inside: what makes many objects and no garbage is two to five times as fast without."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Session:
    """The API's verbs. Cheap to make; owns its transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def close(self) -> None:
        await self._transport.close()

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Response:
        """One request; raises ApiError for every status of 400 and more."""
        headers = {"accept": accept, "user-agent": "kubesvc"}
        if body:
            headers["content-type"] = content_type
        try:
            response = await self._transport.send(Request(method, path, dict(query or {}), headers, body))
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        if response.status >= 400:
            raise _error(response)
        return response

    def websocket(self, path: str, protocol: str) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """A WebSocket to `path`, its query included, as exec speaks it. Raises Unreachable, ApiError on entering."""
        return self._websocket(path, protocol)

    @asynccontextmanager
    async def _websocket(self, path: str, protocol: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        if not isinstance(self._transport, HttpTransport):
            raise TypeError("a session within the server has no WebSockets")
        try:
            async with self._transport.websocket(path, protocol) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            raise await self._refused(path, error) from error
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{path}: {error or type(error).__name__}") from error

    async def _refused(self, path: str, error: aiohttp.WSServerHandshakeError) -> ApiError:
        """What the server said in place of an upgrade: asked once more without one."""
        plain, _, query = path.partition("?")
        answer = await self._transport.send(Request("GET", plain, dict(parse_qsl(query)), {}))
        if answer.status == error.status and answer.body:
            return _error(answer)
        return from_status({"message": error.message}, error.status)

    async def _object(self, method: str, path: str, **options: Any) -> JSON:
        response = await self.raw(method, path, **options)
        found: JSON = msgspec.json.decode(response.body)
        return found

    async def get(self, kind: Kind, namespace: str, name: str) -> JSON:
        """The object as a JSON tree. Raises NotFound."""
        return await self._object("GET", kind.path(namespace, name))

    async def read(self, kind: Kind, view: type[T], namespace: str, name: str) -> T:
        """The object as a typed view. Raises NotFound."""
        response = await self.raw("GET", kind.path(namespace, name))
        return msgspec.json.decode(response.body, type=view)

    async def list(
        self, kind: Kind, view: type[T], *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> ObjectList[T]:
        """All objects, of one namespace or of all, that match the selectors."""
        return _decode_list(view, await self._list_body(kind, namespace, labels, fields))

    async def list_raw(self, kind: Kind, *, namespace: str = "", labels: str = "", fields: str = "") -> RawList:
        """As `list`, but nothing of the items is decoded yet."""
        return _raw_decoder.decode(await self._list_body(kind, namespace, labels, fields))

    async def _list_body(self, kind: Kind, namespace: str, labels: str, fields: str) -> bytes:
        query = {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}
        return (await self.raw("GET", kind.path(namespace), query=query)).body

    async def create(self, kind: Kind, tree: JSON) -> JSON:
        """Raises AlreadyExists, Invalid. The namespace is taken from the object's metadata."""
        whole: JSON = {"apiVersion": kind.api_version, "kind": kind.kind, **tree}
        namespace = whole["metadata"].get("namespace", "")
        return await self._object("POST", kind.path(namespace), body=msgspec.json.encode(whole))

    async def update(self, kind: Kind, tree: JSON, *, subresource: str = "") -> JSON:
        """PUT: for objects this room made whole, as a controller's slices. Raises Conflict when it is stale."""
        meta = tree["metadata"]
        path = kind.path(meta.get("namespace", ""), meta["name"], subresource)
        return await self._object("PUT", path, body=msgspec.json.encode(tree))

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: JSON | Sequence[JSON],
        *,
        subresource: str = "",
        patch_type: str = MERGE_PATCH,
    ) -> JSON:
        """Change named fields alone. Put metadata.resourceVersion in the patch to make it conditional."""
        path = kind.path(namespace, name, subresource)
        return await self._object("PATCH", path, body=msgspec.json.encode(patch), content_type=patch_type)

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: str = "",
    ) -> None:
        """Ask for deletion; with finalizers or a grace period the object lives on for a while. Raises NotFound."""
        options: JSON = {"kind": "DeleteOptions", "apiVersion": "v1"}
        preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}
        if preconditions:
            options["preconditions"] = preconditions
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if propagation:
            options["propagationPolicy"] = propagation
        await self.raw("DELETE", kind.path(namespace, name), body=msgspec.json.encode(options))

    async def delete_collection(self, kind: Kind, namespace: str) -> None:
        """Ask for deletion of every object of `kind` in `namespace`, each with its own grace period."""
        await self.raw("DELETE", kind.path(namespace))

    async def watch(
        self,
        kind: Kind,
        *,
        since: str,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncIterator[WatchEvent]:
        """Events after revision `since`, until the server ends the watch. Raises Expired when `since` is gone."""
        query = {
            "watch": "true",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_seconds),
        }
        query |= {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}
        response = await self.raw("GET", kind.path(namespace), query=query)
        assert response.stream is not None
        try:
            async for line in response.stream:
                if not line.strip():
                    continue
                event = _event_decoder.decode(line)
                if event.type == "ERROR":
                    status: JSON = msgspec.json.decode(event.object)
                    raise from_status(status, status.get("code", 500))
                yield event
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"watch of {kind.resource}: {error or type(error).__name__}") from error
        finally:
            if isinstance(response.stream, AsyncGenerator):
                await response.stream.aclose()


def _error(response: Response) -> ApiError:
    try:
        status = msgspec.json.decode(response.body)
    except msgspec.DecodeError:
        status = {}
    return from_status(status if isinstance(status, dict) else {}, response.status)
