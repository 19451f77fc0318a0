"""GET of pods/NAME/log: the output of a container, streamed from its node as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlencode

import aiohttp

from kubesvc.api.errors import BadRequest, Cause, invalid
from kubesvc.apiserver.routing import Target, is_true
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources.containers import locate, refuse_unstarted
from kubesvc.client.transport import Request, Response

_PASSED_ON = (
    "follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream",
)  # fmt: skip


async def get(state: State, request: Request, target: Target) -> Response:
    """Raises BadRequest while the container waits to start, NotFound, InternalError when the node doesn't answer."""
    query = request.query
    _check(query)
    place = await locate(state, target, query.get("container", ""))
    refuse_unstarted(place, previous=is_true(query, "previous"))
    passed = urlencode([(name, query[name]) for name in _PASSED_ON if query.get(name)])
    path = f"/containerLogs/{place.path}" + (f"?{passed}" if passed else "")
    answer = await state.nodes.get(place.node, path)
    return Response(200, stream=_chunks(answer), content_type="text/plain")


# parameter -> the smallest number it may be
_NUMBERS = {"tailLines": 0, "limitBytes": 1, "sinceSeconds": 1}
_STREAMS = ("All", "Stdout", "Stderr")


def _check(query: Mapping[str, str]) -> None:
    """Raises Invalid, with every cause, in upstream's words; BadRequest for a number that isn't one."""
    causes = []
    for name, least in _NUMBERS.items():
        text = query.get(name, "")
        if not text:
            continue
        if not text.removeprefix("-").isdigit():
            raise BadRequest(f'{name}: Invalid value: "{text}": must be a whole number')
        if int(text) < least:
            rule = "greater than or equal to 0" if least == 0 else "greater than 0"
            causes.append(Cause("FieldValueInvalid", f"Invalid value: {text}: must be {rule}", name))
    if query.get("sinceSeconds") and query.get("sinceTime"):
        message = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        causes.append(Cause("FieldValueForbidden", message, ""))
    stream = query.get("stream", "")
    if stream and stream not in _STREAMS:
        supported = ", ".join(f'"{name}"' for name in _STREAMS)
        message = f'Unsupported value: "{stream}": supported values: {supported}'
        causes.append(Cause("FieldValueNotSupported", message, "stream"))
    if stream not in ("", "All") and query.get("tailLines"):
        message = "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"
        causes.append(Cause("FieldValueForbidden", message, ""))
    if causes:
        raise invalid("PodLogOptions", "", causes)


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk
