"""GET of pods/NAME/log: the output of a container, streamed from its node as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import aiohttp

from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources.containers import locate, refuse_unstarted
from kubesvc.client.transport import Request, Response

_PASSED_ON = (
    "follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream",
)  # fmt: skip


async def get(state: State, request: Request, target: Target) -> Response:
    """Raises BadRequest while the container waits to start, NotFound, InternalError when the node doesn't answer."""
    query = request.query
    place = await locate(state, target, query.get("container", ""))
    refuse_unstarted(place, previous=query.get("previous", "") in ("1", "true"))
    passed = urlencode([(name, query[name]) for name in _PASSED_ON if query.get(name)])
    path = f"/containerLogs/{place.path}" + (f"?{passed}" if passed else "")
    answer = await state.nodes.get(place.node, path)
    return Response(200, stream=_chunks(answer), content_type="text/plain")


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk
