"""Custom kinds in the OpenAPI documents: for `kubectl explain`, `apply` and `diff`.

Version 3 has the schema as the definition has it; version 2, which knows fewer words, a part of it, as upstream.
Documents are made on first use and kept until a definition changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.apiserver import openapi, openapi_paths, openapi_protobuf
from kubesvc.apiserver.custom.kind import CustomKind

_WORDS_V2 = ("type", "format", "description", "required", "enum")
_META_TYPE = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_ROOT = {
    "apiVersion": {"type": "string", "description": "The API version the object is written in."},
    "kind": {"type": "string", "description": "What the object is."},
}


class Documents:
    """The documents of the kinds served beside the built-in ones."""

    def __init__(self) -> None:
        self._generation = -1
        self._kept: dict[str, bytes | None] = {}

    def v3_index(self, kinds: Sequence[CustomKind], generation: int) -> bytes:
        if not kinds:
            return openapi.v3_index()
        return self._keep("index", generation, lambda: _index(kinds)) or b""

    def v3(self, path: str, kinds: Sequence[CustomKind], generation: int) -> bytes | None:
        found = openapi.v3(path)
        if found is not None or not kinds:
            return found
        return self._keep(f"v3 {path}", generation, lambda: _v3(path, kinds))

    def v2(self, kinds: Sequence[CustomKind], generation: int, *, protobuf: bool) -> bytes:
        if not kinds:
            return openapi_protobuf.v2() if protobuf else openapi.v2()
        if protobuf:
            return self._keep("v2 protobuf", generation, lambda: openapi_protobuf.encode(_v2(kinds))) or b""
        return self._keep("v2", generation, lambda: msgspec.json.encode(_v2(kinds))) or b""

    def _keep(self, name: str, generation: int, make: Any) -> bytes | None:
        if generation != self._generation:
            self._generation, self._kept = generation, {}
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]


def _of(path: str, kinds: Sequence[CustomKind]) -> list[CustomKind]:
    return [kind for kind in kinds if kind.root == f"/{path}"]


def _index(kinds: Sequence[CustomKind]) -> bytes:
    document = msgspec.json.decode(openapi.v3_index())
    for path in sorted({kind.root.removeprefix("/") for kind in kinds}):
        if path not in document["paths"]:
            digest = hashlib.sha256(_v3(path, kinds) or b"").hexdigest().upper()
            document["paths"][path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return msgspec.json.encode(document)


def _v3(path: str, kinds: Sequence[CustomKind]) -> bytes | None:
    mine = _of(path, kinds)
    if not mine:
        return None
    schemas = openapi.definitions(
        [], openapi_paths.V3, more=(_META_TYPE, *{b for kind in mine for b in openapi_paths.bodies(kind)})
    )
    for kind in mine:
        schemas[openapi_paths.type_name(kind)] = _rooted(kind, dict(kind.schema), openapi_paths.V3)
    found = {p: item for kind in mine for p, item in openapi_paths.paths_of(kind, openapi_paths.V3).items()}
    return msgspec.json.encode(
        {"openapi": "3.0.0", "info": openapi.info(), "paths": found, "components": {"schemas": schemas}}
    )


def _v2(kinds: Sequence[CustomKind]) -> JSON:
    document: JSON = msgspec.json.decode(openapi.v2())
    for kind in kinds:
        document["definitions"][openapi_paths.type_name(kind)] = _rooted(kind, _narrowed(kind.schema), openapi_paths.V2)
        document["paths"] |= openapi_paths.paths_of(kind, openapi_paths.V2)
    return document


def _rooted(kind: CustomKind, schema: JSON, prefix: str) -> JSON:
    reference: JSON = {"$ref": prefix + _META_TYPE}
    own = dict(schema.get("properties") or {})
    schema["properties"] = {**own, **_ROOT, "metadata": reference}
    schema["x-kubernetes-group-version-kind"] = [{"group": kind.group, "version": kind.version, "kind": kind.kind}]
    return schema


def _narrowed(schema: JSON) -> JSON:
    """What of a schema version 2 can say."""
    found: JSON = {word: schema[word] for word in _WORDS_V2 if word in schema}
    found |= {word: value for word, value in schema.items() if word.startswith("x-kubernetes-") and _plain(word)}
    if schema.get("properties"):
        found["properties"] = {name: _narrowed(field) for name, field in schema["properties"].items()}
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            found[word] = _narrowed(schema[word])
    return found


def _plain(word: str) -> bool:
    return word != "x-kubernetes-validations"
