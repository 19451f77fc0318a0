"""Answers that a client may already have, or want packed: ETag and 304 for documents, gzip for what is large.

Compressing happens in a thread, beside the event loop.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib

from kubesvc.client.transport import Request, Response

LARGE = 128 * 1024  # bytes, as upstream: less isn't worth the time
_LEVEL = 1


def unless_known(request: Request, response: Response) -> Response:
    """`response` with its ETag; 304 and no body where the client says that it has just that one."""
    if response.status != 200 or response.stream is not None:
        return response
    tag = f'"{hashlib.sha256(response.body).hexdigest().upper()}"'
    response.headers |= {"ETag": tag, "Vary": "Accept", "Cache-Control": "public"}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(304, headers=response.headers, content_type=response.content_type)
    return response


async def packed(request: Request, response: Response) -> Response:
    """`response`, gzipped where it is large and the client takes that."""
    if len(response.body) < LARGE or request.method != "GET" or not _takes_gzip(request):
        return response
    if any(name.lower() == "content-encoding" for name in response.headers):  # what a proxy brought
        return response
    response.body = await asyncio.to_thread(gzip.compress, response.body, _LEVEL)
    response.headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return response


def _takes_gzip(request: Request) -> bool:
    for part in request.headers.get("accept-encoding", "").split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0")
    return False
