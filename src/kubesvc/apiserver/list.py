"""GET of a collection: all at one revision, a page at a time where `limit` asks for it.

A continue token names the revision of the first page and the key to go on from; it works until that revision is
compacted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from kubesvc.api.errors import BadRequest, Cause, Expired, Timeout
from kubesvc.apiserver import encode, selection, stored
from kubesvc.apiserver.admission.causes import forbidden, not_supported
from kubesvc.apiserver.body import refuse_options
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.selection import Selection
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response
from kubesvc.store.protocol import Compacted, Page, Versioned

_CHUNK = 500
_GONE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_ANY = -1  # the revision in a token that goes on at whatever is the present
_EXACT, _NOT_OLDER = "Exact", "NotOlderThan"


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
    """Raises BadRequest, Invalid (parameters), Expired (a page's revision is gone; the Status has a token to go on with
    at the present one), Timeout (a revision that isn't there yet).

        resourceVersion  resourceVersionMatch  limit      the list is of
        none, 0                                           now
        N                                                 now, which isn't older
        N                                      given      revision N
        N                Exact                            revision N
        N                NotOlderThan                     now
    """
    check_options(request.query, watch=False)
    selected = selection.parse(target.kind, request.query)
    page, token = await read_page(state, request, target, selected)
    return encode.many(state, request, target.kind, page, token)


async def read_page(state: State, request: Request, target: Target, selected: Selection) -> tuple[Page, str]:
    """The page that the request asks for, and the token for the next. Raises BadRequest, Expired, Timeout."""
    limit = _number(request.query, "limit")
    revision, start = await _position(state, target, request.query)
    try:
        page = await read(state, target, selected, limit=limit, start=start, revision=revision)
    except Compacted as gone:
        if not start:
            raise Expired(too_old(revision, gone.oldest)) from gone
        raise Expired(_GONE, continue_token=Token(_ANY, start).write()) from gone
    token = Token(page.revision, page.next_key).write() if limit and page.next_key else ""
    return page, token


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
        return max(found.rv, 0), found.start
    wanted = revision_of(text)
    await refuse_future(state, wanted)
    if wanted and (match == _EXACT or (not match and _number(query, "limit"))):
        return wanted, ""
    return 0, ""


def check_options(query: Mapping[str, str], *, watch: bool) -> None:
    """Raises Invalid for parameters that don't go together. Source: ValidateListOptions of apimachinery."""
    match, initial = query.get("resourceVersionMatch", ""), "sendInitialEvents" in query
    causes: list[Cause] = []

    def refuse(why: str) -> None:
        causes.append(forbidden("resourceVersionMatch", why))

    if watch and initial and match != _NOT_OLDER:
        refuse(f"sendInitialEvents requires setting resourceVersionMatch to {_NOT_OLDER}")
    if match and watch and not initial:
        refuse("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
    if match and not watch and not query.get("resourceVersion"):
        refuse("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match and query.get("continue"):
        refuse("resourceVersionMatch is forbidden when continue is provided")
    allowed = (_NOT_OLDER,) if watch else (_EXACT, _NOT_OLDER, "")
    if match and match not in allowed:
        causes.append(not_supported("resourceVersionMatch", match, allowed))
    if match == _EXACT and not watch and query.get("resourceVersion") == "0":
        refuse('resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if initial and not watch:
        causes.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    refuse_options("ListOptions", causes)


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
