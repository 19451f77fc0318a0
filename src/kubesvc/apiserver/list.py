"""GET of a collection: all at one revision, a page at a time where `limit` asks for it.

A continue token names the revision of the first page and the key to go on from; it works until that revision is
compacted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from kubesvc.api.errors import BadRequest, Expired, Timeout
from kubesvc.apiserver import encode, selection, stored
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.selection import Selection
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response
from kubesvc.store.protocol import Compacted, Page, Versioned

_CHUNK = 500
_GONE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter."
)


class Token(msgspec.Struct, frozen=True):
    """What a continue token says: the revision, and the key to start from."""

    rv: int
    start: str

    def write(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Token:
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=cls)
        except (binascii.Error, msgspec.DecodeError, ValueError) as error:
            raise BadRequest("continue key is not valid: it wasn't given by this server") from error


async def list_(state: State, request: Request, target: Target) -> Response:
    """Raises BadRequest, Expired (a page's revision is gone), Timeout (a revision that isn't there yet)."""
    selected = selection.parse(target.kind, request.query)
    limit = _number(request.query, "limit")
    revision, start = await _position(state, target, request.query)
    try:
        page = await read(state, target, selected, limit=limit, start=start, revision=revision)
    except Compacted as gone:
        raise Expired(_GONE if start else too_old(revision, gone.oldest)) from gone
    token = Token(page.revision, page.next_key).write() if page.next_key else ""
    return encode.many(state, request, target.kind, page, token)


async def read(
    state: State, target: Target, selected: Selection, *, limit: int = 0, start: str = "", revision: int = 0
) -> Page:
    """The objects of the collection that are selected. `remaining` is only known when all are. Raises Compacted."""
    prefix = stored.collection(target.kind, target.namespace)
    if selected.everything:
        return await state.store.list(prefix, limit=limit, start=start, revision=revision)
    if selected.name and (target.namespace or not target.kind.namespaced):
        prefix = stored.key(target.kind, target.namespace, selected.name)
    items: list[Versioned] = []
    while True:
        page = await state.store.list(prefix, limit=_CHUNK if limit else 0, start=start, revision=revision)
        revision = page.revision
        for item in page.items:
            if limit and len(items) == limit:
                return Page(items, revision, item.key)
            if selected.matches(item.key, item.value, item.revision, selection.decoded):
                items.append(item)
        if not page.next_key:
            return Page(items, revision)
        start = page.next_key


async def _position(state: State, target: Target, query: Mapping[str, str]) -> tuple[int, str]:
    """(revision, start key) to list at; revision 0 is the present."""
    text, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if token := query.get("continue", ""):
        if text not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        found = Token.read(token)
        if not found.start.startswith(stored.collection(target.kind, target.namespace)):
            raise BadRequest("continue key is not valid: it is of another collection")
        return found.rv, found.start
    if match not in ("", "Exact", "NotOlderThan"):
        raise BadRequest(f'resourceVersionMatch: Unsupported value: "{match}": use Exact or NotOlderThan')
    if match and not text:
        raise BadRequest(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    wanted = revision_of(text)
    await refuse_future(state, wanted)
    if match == "Exact":
        if not wanted:
            raise BadRequest('resourceVersionMatch: Forbidden: "Exact" is forbidden for resourceVersion "0"')
        return wanted, ""
    return 0, ""


def revision_of(text: str) -> int:
    """The number a resourceVersion is; 0 for none. Raises BadRequest."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(f'Invalid value: "{text}": resourceVersion must be a whole number')
    return int(text)


async def refuse_future(state: State, revision: int) -> None:
    """Raises Timeout where `revision` isn't there yet: it comes from another store, or another life of this one."""
    current = await state.store.revision()
    if revision > current:
        message = f"Too large resource version: {revision}, current: {current}"
        raise Timeout(
            message,
            details={
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            },
            retry_after=1,
        )


def too_old(revision: int, oldest: int) -> str:
    return f"too old resource version: {revision} ({oldest})"


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(f'{name}: Invalid value: "{text}": must be a whole number')
    return int(text)
