"""GET of a collection with watch=true: a line for each change, for as long as both sides want.

    no resourceVersion, or 0   what is there now as ADDED, then changes
    resourceVersion=N          changes after N, or 410 Expired when N is no longer kept
    sendInitialEvents=true     what is there now as ADDED, a BOOKMARK that says so, then changes (KEP-3157)

With a selector a change may turn an object into one that is selected (ADDED) or no longer is (DELETED).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from kubesvc.api.errors import Expired, NotAcceptable
from kubesvc.api.registry import Kind
from kubesvc.apiserver import encode, selection, stored
from kubesvc.apiserver.list import check_options, read, refuse_future, revision_of, too_old
from kubesvc.apiserver.negotiation import JSON_TYPE, Representation
from kubesvc.apiserver.routing import Target, is_true
from kubesvc.apiserver.selection import Selection
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response
from kubesvc.store.protocol import Compacted, StoreEvent, Versioned

_LONGEST = 1800  # seconds a watch without timeoutSeconds lives; then the client watches on


async def watch(state: State, request: Request, target: Target) -> Response:
    """Raises BadRequest, Invalid (parameters), NotAcceptable, and Timeout for a revision that isn't there yet; Expired
    comes as the watch's first line."""
    query = request.query
    check_options(query, watch=True)
    selected = selection.parse(target.kind, query)
    form = encode.representation(request)
    if form.media != JSON_TYPE:
        raise NotAcceptable(
            "only the following media types are accepted: application/json, application/json;stream=watch"
        )
    text = query.get("resourceVersion", "")
    since = revision_of(text)
    await refuse_future(state, since)
    initial = _initial_events(query)
    bookmarks = is_true(query, "allowWatchBookmarks")
    deadline = asyncio.get_running_loop().time() + (revision_of(query.get("timeoutSeconds", "")) or _LONGEST)
    follow = Follow(state, target, selected, form, bookmarks=bookmarks, deadline=deadline)
    if initial or (initial is None and not since):
        return Response(200, stream=follow.from_now(mark=bool(initial)))
    return Response(200, stream=follow.since(since or await state.store.revision()))


def _initial_events(query: Mapping[str, str]) -> bool | None:
    """sendInitialEvents, None where it isn't given."""
    return is_true(query, "sendInitialEvents") if "sendInitialEvents" in query else None


class Follow:
    """One watch: what it selects, in which form, until when (loop time)."""

    def __init__(
        self,
        state: State,
        target: Target,
        selected: Selection,
        form: Representation,
        *,
        bookmarks: bool,
        deadline: float,
    ) -> None:
        self._state, self._target, self._selected, self._form = state, target, selected, form
        self._bookmarks, self._deadline = bookmarks, deadline
        # Lines are shared by the object's key; a view's are not those of the kind whose objects it shows.
        self._apart = "" if target.kind.stored_as is None else f"{target.kind.api_version} "

    @property
    def _kind(self) -> Kind:
        return self._target.kind

    async def from_now(self, *, mark: bool) -> AsyncIterator[bytes]:
        page = await read(self._state, self._target, self._selected)
        for item in page.items:
            yield encode.line(self._state, self._kind, self._form, "ADDED", item)
        if mark:
            yield encode.bookmark(self._kind, self._form, page.revision, initial_events_end=True)
        async for line in self.since(page.revision):
            yield line

    async def since(self, revision: int) -> AsyncIterator[bytes]:
        events = self._state.store.watch(stored.collection(self._kind, self._target.namespace), revision)
        while True:
            event: StoreEvent | int | None
            try:
                if (event := events.take()) is None:
                    async with asyncio.timeout_at(self._deadline):
                        event = await anext(events)
            except TimeoutError:
                return
            except Compacted as gone:
                yield encode.error_line(Expired(too_old(revision, gone.oldest)))
                return
            if isinstance(event, int):
                if self._bookmarks:
                    yield encode.bookmark(self._kind, self._form, event)
            elif (line := self._line(event)) is not None:
                yield line

    def _line(self, event: StoreEvent) -> bytes | None:
        """What this watch says of a change; None when it is about nothing selected."""
        before = event.previous if self._selects(event.previous, event.previous_revision, event.key) else None
        after = event.value if self._selects(event.value, event.revision, event.key) else None
        if after is not None:
            type = "ADDED" if before is None else "MODIFIED"
            return self._shared(type, Versioned(event.key, after, event.revision))
        if before is None:
            return None
        # What left the selection is shown as it is now, what left the store as it last was.
        last = event.value if event.value is not None else before
        return self._shared("DELETED", Versioned(event.key, last, event.revision))

    def _selects(self, value: bytes | None, revision: int, key: str) -> bool:
        if value is None:
            return False
        return self._selected.everything or self._selected.matches(key, value, revision, self._state.lines.tree)

    def _shared(self, type: str, item: Versioned) -> bytes:
        """The line, made once for all who watch in the same form."""
        return self._state.lines.line(
            self._apart + item.key,
            item.revision,
            type,
            self._form,
            lambda: encode.line(self._state, self._kind, self._form, type, item),
        )
