"""A document that many Services share, written by one at a time and for many at once.

Who wants something of it hands in a share and waits. While one write is under way the next shares gather; they go into
one document and one write. The write is conditional on the ETag that was read: when somebody else was faster, it is
read again and decided again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.providers.azure.client import Busy, CloudError, Rejected, Stale
from kubesvc.loadbalancer.providers.azure.merged import Merged

S = TypeVar("S")
ATTEMPTS = 6  # of one write, when others write as well


class Store(msgspec.Struct, frozen=True):
    """`put` gets the document and the ETag it replaces, "" for one that is new; `delete` the ETag."""

    get: Callable[[], Awaitable[JSON | None]]
    put: Callable[[JSON, str], Awaitable[JSON]]
    delete: Callable[[str], Awaitable[None]]


class Applied(msgspec.Struct, frozen=True):
    """`refused`: (reason, message), or None. `freed`: others may have now what they were refused."""

    document: JSON | None
    refused: tuple[str, str] | None = None
    freed: bool = False


class Shared(Generic[S]):
    """`merge` is pure: (document, uid -> share or None) -> what it should become."""

    def __init__(
        self,
        store: Store,
        merge: Callable[[JSON | None, Mapping[str, S | None]], Merged],
        *,
        fresh: float,
        pause: float,
    ) -> None:
        self._store, self._merge, self._fresh, self._pause = store, merge, fresh, pause
        self._lock = asyncio.Lock()
        self._pending: list[tuple[str, S | None, asyncio.Future[Applied]]] = []
        self._document: JSON | None = None
        self._read_at: float | None = None  # loop's clock; None: read it before the next use

    async def apply(self, uid: str, share: S | None) -> Applied:
        """The document once the share is in it, or gone from it. Raises CloudError."""
        answer: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._pending.append((uid, share, answer))
        async with self._lock:
            if not answer.done():
                batch, self._pending = self._pending, []
                await self._serve(batch)
        return await answer

    async def current(self) -> JSON | None:
        """As it was last seen, or is now. Raises CloudError."""
        async with self._lock:
            return await self._read()

    async def _serve(self, batch: list[tuple[str, S | None, asyncio.Future[Applied]]]) -> None:
        try:
            shares = {uid: share for uid, share, _ in batch}
            answers = await self._each(shares)
        except BaseException as error:
            for _, _, answer in batch:
                if not answer.done():
                    answer.set_exception(error if isinstance(error, CloudError) else CloudError("interrupted"))
                    answer.exception()  # seen: who asked may have gone
            if not isinstance(error, CloudError):
                raise
        else:
            for uid, _, answer in batch:
                if answer.done():  # cancelled
                    continue
                found = answers[uid]
                if isinstance(found, CloudError):
                    answer.set_exception(found)
                    answer.exception()
                else:
                    answer.set_result(found)

    async def _each(self, shares: Mapping[str, S | None]) -> dict[str, Applied | CloudError]:
        """All in one write; when Azure won't have that, each by itself: one bad wish must not cost the others."""
        try:
            return dict(await self._write(shares))
        except Rejected as rejected:
            if len(shares) == 1:
                return dict.fromkeys(shares, rejected)
            found: dict[str, Applied | CloudError] = {}
            for uid, share in shares.items():
                found |= await self._each({uid: share})
            return found

    async def _write(self, shares: Mapping[str, S | None]) -> dict[str, Applied]:
        attempt = 0
        while True:
            attempt += 1
            before = await self._read()
            merged = self._merge(before, shares)
            document = before
            if merged.changed:
                try:
                    document = await self._put(before, merged.document)
                except (Stale, Busy) as error:
                    if attempt >= ATTEMPTS:
                        raise
                    if isinstance(error, Busy):
                        await asyncio.sleep(self._pause)
                    continue
            return {uid: Applied(document, merged.refused.get(uid), merged.freed) for uid in shares}

    async def _put(self, before: JSON | None, after: JSON | None) -> JSON | None:
        self._read_at = None  # unless it is known how this ends, it must be looked at
        etag = str((before or {}).get("etag", ""))
        document = None
        if after is None:
            await self._store.delete(etag)
        else:
            document = await self._store.put(after, etag)
        self._seen(document)
        return document

    async def _read(self) -> JSON | None:
        now = asyncio.get_running_loop().time()
        if self._read_at is None or now - self._read_at > self._fresh:
            self._seen(await self._store.get())
        return self._document

    def _seen(self, document: JSON | None) -> None:
        self._document, self._read_at = document, asyncio.get_running_loop().time()
