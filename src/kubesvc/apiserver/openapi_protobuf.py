"""/openapi/v2 in protobuf: the only form in which kubectl takes it, and kubectl needs it to apply a List.

The messages are gnostic's (google/gnostic-models, openapiv2/OpenAPIv2.proto): a tree much like the JSON, but with a
message around every choice, maps as lists of named values, and extensions as YAML text.

    Schema { type: "array", items: X }   22: TypeItem { 1: "array" }   23: ItemsItem { 1: Schema X }
    Definitions { NAME: X }              1: NamedSchema { 1: NAME  2: Schema X }, one for each
    x-kubernetes-...: X                  NamedAny { 1: the extension's name  2: Any { 2: X as YAML } }

There are fields here for what `openapi` writes; anything else is a ValueError, for a document that silently lacked
something would make kubectl merge wrongly. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.apiserver import openapi

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What clients ask for has an @, which no media type may have: answers say it with a dot, as upstream's do.
ACCEPTED = (MEDIA_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")

Encode = Callable[[Any], bytes | bool]
Fields = Mapping[str, tuple[int, Encode]]  # JSON key -> (field number, what writes the value); "x-" is every extension


@cache
def v2() -> bytes:
    """/openapi/v2 as protobuf."""
    return encode(msgspec.json.decode(openapi.v2()))


def encode(document: JSON) -> bytes:
    """An OpenAPI v2 document as gnostic's Document. Raises ValueError for what has no field here."""
    return _message(document, _DOCUMENT)


# ── the wire format ──────────────────────────────────────────────────────────────────────────────────────────────────


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: bytes | bool) -> bytes:
    if isinstance(value, bool):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _message(tree: JSON, fields: Fields) -> bytes:
    out = bytearray()
    for key, value in tree.items():
        extension = key.startswith("x-")
        field = fields.get("x-" if extension else key)
        if field is None:
            raise ValueError(f"OpenAPI v2 as protobuf: there is no field for {key} beside {', '.join(fields)}")
        number, write = field
        if extension:
            out += _field(number, _entry(key, write(value)))
        else:
            for item in value if isinstance(value, list) else [value]:
                out += _field(number, write(item))
    return bytes(out)


def _text(value: str) -> bytes:
    return value.encode()


def _flag(value: bool) -> bool:
    return value


def _yaml(value: object) -> bytes:
    """JSON is YAML once there are spaces after its colons."""
    return _field(2, msgspec.json.format(msgspec.json.encode(value), indent=0))


def _entry(name: str, value: bytes | bool) -> bytes:
    return _field(1, name.encode()) + _field(2, value)


def _in(number: int, write: Encode) -> Encode:
    """A message that holds one value and nothing else."""
    return lambda value: _field(number, write(value))


def _named(number: int, write: Encode) -> Encode:
    """A map."""
    return lambda tree: b"".join(_field(number, _entry(name, write(value))) for name, value in tree.items())


def _schema(tree: JSON) -> bytes:
    return _message(tree, _SCHEMA)


def _path_item(tree: JSON) -> bytes:
    return _message(tree, _PATH_ITEM)


def _operation(tree: JSON) -> bytes:
    return _message(tree, _OPERATION)


def _response(tree: JSON) -> bytes:
    return _message(tree, _RESPONSE)


def _parameter(tree: JSON) -> bytes:
    """ParametersItem { 1: Parameter { 1: BodyParameter, or 2: NonBodyParameter { 3: query, or 4: path } } }"""
    match tree["in"]:
        case "body":
            held = _field(1, _message(tree, _BODY))
        case "query":
            held = _field(2, _field(3, _message(tree, _QUERY)))
        case "path":
            held = _field(2, _field(4, _message(tree, _PATH)))
        case where:
            raise ValueError(f"OpenAPI v2 as protobuf: there is no parameter in {where}: expected body, query or path")
    return _field(1, held)


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_SCHEMA: Fields = {
    "$ref": (1, _text),
    "format": (2, _text),
    "description": (4, _text),
    "required": (19, _text),
    "enum": (20, _yaml),
    "additionalProperties": (21, _in(1, _schema)),
    "type": (22, _in(1, _text)),
    "items": (23, _in(1, _schema)),
    "properties": (25, _named(1, _schema)),
    "x-": (31, _yaml),
}
_BODY: Fields = {"description": (1, _text), "name": (2, _text), "in": (3, _text), "required": (4, _flag),
                 "schema": (5, _schema)}  # fmt: skip
_QUERY: Fields = {"required": (1, _flag), "in": (2, _text), "description": (3, _text), "name": (4, _text),
                  "type": (6, _text)}  # fmt: skip
_PATH: Fields = {**_QUERY, "type": (5, _text)}  # which has no allowEmptyValue
_RESPONSE: Fields = {"description": (1, _text), "schema": (2, _in(1, _schema))}
_OPERATION: Fields = {
    "description": (3, _text),
    "operationId": (5, _text),
    "consumes": (7, _text),
    "parameters": (8, _parameter),
    "responses": (9, _named(1, _in(1, _response))),
    "x-": (13, _yaml),
}
_PATH_ITEM: Fields = {
    "get": (2, _operation),
    "put": (3, _operation),
    "post": (4, _operation),
    "delete": (5, _operation),
    "patch": (8, _operation),
    "parameters": (9, _parameter),
    "x-": (10, _yaml),
}
_INFO: Fields = {"title": (1, _text), "version": (2, _text)}
_DOCUMENT: Fields = {
    "swagger": (1, _text),
    "info": (2, lambda tree: _message(tree, _INFO)),
    "paths": (8, _named(2, _path_item)),
    "definitions": (9, _named(1, _schema)),
}
