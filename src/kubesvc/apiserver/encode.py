"""Answers: an object, a list or a watch line in the form the client asked for, and Status objects.

Whole objects are never decoded on the way out; tables and metadata are made from trees.
"""

from __future__ import annotations

import msgspec
import yaml

from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver import stored, tables
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.negotiation import YAML_TYPE, Representation, negotiate
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response
from kubesvc.store.protocol import Page, Versioned

_encode = msgspec.json.Encoder().encode
_META = "meta.k8s.io/"
_Dumper: type = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def representation(request: Request) -> Representation:
    """What this request asks for. Raises NotAcceptable."""
    return negotiate(request.headers.get("accept", ""), request.query.get("includeObject", ""))


def tree(body: JSON, status: int = 200) -> Response:
    return Response(status, _encode(body))


def success(details: JSON | None = None, status: int = 200) -> Response:
    """A Status that says that it is done."""
    body: JSON = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        body["details"] = details
    return tree(body, status)


def failure(error: ApiError) -> Response:
    response = tree(error.to_status(), error.code)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def one(state: State, request: Request, kind: Kind, item: Versioned, status: int = 200) -> Response:
    """One object, as the request wants it."""
    form = representation(request)
    return _written(form, Response(status, _one(state, kind, form, item)))


def _written(form: Representation, response: Response) -> Response:
    """`response` in YAML, where that was asked for."""
    if form.media == YAML_TYPE:
        text = yaml.dump(msgspec.json.decode(response.body), Dumper=_Dumper, default_flow_style=False, sort_keys=True,
                         allow_unicode=True)  # fmt: skip
        response.body, response.content_type = text.encode(), YAML_TYPE
    return response


def _one(state: State, kind: Kind, form: Representation, item: Versioned) -> bytes:
    if form.form == "table":
        table = tables.table(
            kind,
            [stored.tree_of(item)],
            state.clock(),
            resource_version=str(item.revision),
            include=form.include,
        )
        return _encode(table | {"apiVersion": _META + form.version})
    if form.form == "metadata":
        return _encode(_partial(form, stored.tree_of(item)))
    return stored.stamped(kind, item.value, item.revision)


def _partial(form: Representation, whole: JSON) -> JSON:
    return {"kind": "PartialObjectMetadata", "apiVersion": _META + form.version, "metadata": whole["metadata"]}


def many(state: State, request: Request, kind: Kind, page: Page, continue_token: str = "") -> Response:
    """A list, as the request wants it."""
    form = representation(request)
    return _written(form, _many(state, form, kind, page, continue_token))


def _many(state: State, form: Representation, kind: Kind, page: Page, continue_token: str) -> Response:
    metadata: JSON = {"resourceVersion": str(page.revision)}
    if continue_token:
        metadata["continue"] = continue_token
        if page.remaining:
            metadata["remainingItemCount"] = page.remaining
    if form.form == "table":
        trees = [stored.tree_of(item) for item in page.items]
        table = tables.table(kind, trees, state.clock(), resource_version=str(page.revision), include=form.include)
        return tree(table | {"apiVersion": _META + form.version, "metadata": metadata})
    if form.form == "metadata":
        items = [_partial(form, stored.tree_of(item)) for item in page.items]
        shape = {"kind": "PartialObjectMetadataList", "apiVersion": _META + form.version}
        return tree({**shape, "metadata": metadata, "items": items})
    body = b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[%s]}' % (
        (kind.list_kind if isinstance(kind, CustomKind) else f"{kind.kind}List").encode(),
        kind.api_version.encode(),
        _encode(metadata),
        b",".join([stored.stamped(kind, item.value, item.revision) for item in page.items]),
    )
    return Response(200, body)


def line(state: State, kind: Kind, form: Representation, type: str, item: Versioned) -> bytes:
    """One line of a watch."""
    return b'{"type":"%s","object":%s}\n' % (type.encode(), _one(state, kind, form, item))


def bookmark(kind: Kind, form: Representation, revision: int, *, initial_events_end: bool = False) -> bytes:
    """A bookmark: nothing before `revision` is still to come."""
    metadata: JSON = {"resourceVersion": str(revision)}
    if initial_events_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    body: JSON = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    if form.form == "metadata":
        body = _partial(form, body)
    elif form.form == "table":
        row: JSON = {"cells": [], "object": _partial(form, body)}
        body = {
            "kind": "Table",
            "apiVersion": _META + form.version,
            "metadata": {"resourceVersion": str(revision)},
            "columnDefinitions": [],
            "rows": [row],
        }
    return b'{"type":"BOOKMARK","object":%s}\n' % _encode(body)


def error_line(error: ApiError) -> bytes:
    return b'{"type":"ERROR","object":%s}\n' % _encode(error.to_status())
