"""The protobuf form of /openapi/v2, read back by gnostic's field numbers, says what the JSON says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml

from kubesvc.apiserver import openapi, openapi_protobuf
from kubesvc.client.transport import Handler, Request
from support.apiserver import ADMIN, local_server

ASKED_BY_KUBECTL = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"

# message -> field number -> (JSON key, what it holds: text, bool, or a message; + for many), from OpenAPIv2.proto.
# {} is a map's list of named values, | a choice: the value is the one field that is set, and {=} an extension.
MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Document": {1: ("swagger", "text"), 2: ("info", "Info"), 8: ("paths", "Paths"), 9: ("definitions", "Schemas")},
    "Info": {1: ("title", "text"), 2: ("version", "text")},
    "Paths": {2: ("{}", "PathItem")},
    "PathItem": {2: ("get", "Operation"), 3: ("put", "Operation"), 4: ("post", "Operation"), 5: ("delete", "Operation"),
                 8: ("patch", "Operation"), 9: ("parameters", "ParametersItem+")},
    "Operation": {5: ("operationId", "text"), 7: ("consumes", "text+"), 8: ("parameters", "ParametersItem+"),
                  9: ("responses", "Responses"),
                  13: ("{=}", "Any")},
    "ParametersItem": {1: ("|", "Parameter")},
    "Parameter": {1: ("|", "BodyParameter"), 2: ("|", "NonBodyParameter")},
    "NonBodyParameter": {3: ("|", "Query"), 4: ("|", "Path")},
    "BodyParameter": {2: ("name", "text"), 3: ("in", "text"), 4: ("required", "bool"), 5: ("schema", "Schema")},
    "Query": {1: ("required", "bool"), 2: ("in", "text"), 4: ("name", "text"), 6: ("type", "text")},
    "Path": {1: ("required", "bool"), 2: ("in", "text"), 4: ("name", "text"), 5: ("type", "text")},
    "Responses": {1: ("{}", "ResponseValue")},
    "ResponseValue": {1: ("|", "Response")},
    "Response": {1: ("description", "text"), 2: ("schema", "SchemaItem")},
    "SchemaItem": {1: ("|", "Schema")},
    "Schemas": {1: ("{}", "Schema")},
    "Schema": {1: ("$ref", "text"), 2: ("format", "text"), 4: ("description", "text"), 19: ("required", "text+"),
               20: ("enum", "Any+"), 21: ("additionalProperties", "SchemaItem"), 22: ("type", "Strings"),
               23: ("items", "SchemaItem"), 25: ("properties", "Schemas"), 31: ("{=}", "Any")},
    "Strings": {1: ("|", "text")},
    "Any": {2: ("|", "yaml")},
}  # fmt: skip


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 2:
            assert at + value <= len(data)
            found.append((tag >> 3, data[at : at + value]))
            at += value
        else:
            assert tag & 7 == 0
            found.append((tag >> 3, value))
    return found


def read(message: str, data: Any) -> Any:
    match message:
        case "text":
            return data.decode()
        case "yaml":
            return yaml.safe_load(data.decode())
        case "bool":
            return bool(data)
    tree: dict[str, Any] = {}
    for number, raw in fields(data):
        key, type = MESSAGES[message][number]
        if key == "|":
            return read(type, raw)
        if key.startswith("{"):
            (_, name), (_, value) = fields(raw)
            tree[name.decode()] = read(type, value)
        elif type.endswith("+"):
            tree.setdefault(key, []).append(read(type[:-1], raw))
        else:
            tree[key] = read(type, raw)
    return tree


def without_empty(tree: Any) -> Any:
    """An empty list can't be told from none in protobuf."""
    if isinstance(tree, dict):
        return {key: without_empty(value) for key, value in tree.items() if value != []}
    return [without_empty(item) for item in tree] if isinstance(tree, list) else tree


def test_the_whole_document_reads_back() -> None:
    assert read("Document", openapi_protobuf.v2()) == without_empty(json.loads(openapi.v2()))


def test_a_message_is_written_byte_for_byte() -> None:
    """Checked by hand against the .proto."""
    document = {"definitions": {"A": {"type": "array", "items": {"$ref": "#/definitions/B"}, "x-kubernetes-b": ["c"]}}}
    schema = (
        b"\xb2\x01\x07\x0a\x05array"  # 22: type
        b"\xba\x01\x13\x0a\x11\x0a\x0f#/definitions/B"  # 23: items
        b"\xfa\x01\x19\x0a\x0ex-kubernetes-b\x12\x07\x12\x05" + b'["c"]'  # 31: an extension
    )
    named = b"\x0a\x01A\x12" + bytes([len(schema)]) + schema
    definitions = b"\x0a" + bytes([len(named)]) + named
    assert openapi_protobuf.encode(document) == b"\x4a" + bytes([len(definitions)]) + definitions


def test_a_long_text_has_a_length_of_two_bytes() -> None:
    assert openapi_protobuf.encode({"swagger": "x" * 300}) == b"\x0a\xac\x02" + b"x" * 300


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"definitions": {"A": {"oneOf": []}}}, "oneOf"),
        ({"paths": {"/": {"parameters": [{"name": "a", "in": "header"}]}}}, "header"),
    ],
    ids=["a key without a field", "a parameter elsewhere"],
)
def test_what_cannot_be_written_is_refused(document: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        openapi_protobuf.encode(document)


def test_a_described_reference_is_still_one() -> None:
    """kubectl's reader of version 2 takes an allOf for a value of any shape, and then can't merge what is in it."""
    service = json.loads(openapi.v2())["definitions"]["io.k8s.api.core.v1.Service"]
    assert service["properties"]["spec"]["$ref"] == "#/definitions/io.k8s.api.core.v1.ServiceSpec"
    assert service["properties"]["spec"]["description"]
    assert b'"allOf":[' not in openapi.v2()


@pytest.fixture
async def handler() -> AsyncIterator[Handler]:
    async with local_server() as server:
        yield server.handler


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (ASKED_BY_KUBECTL, openapi_protobuf.MEDIA_TYPE),
        (ASKED_BY_KUBECTL + ", application/json", openapi_protobuf.MEDIA_TYPE),
        ("application/json, " + ASKED_BY_KUBECTL, "application/json"),
        (openapi_protobuf.MEDIA_TYPE, openapi_protobuf.MEDIA_TYPE),
        ("*/*", "application/json"),
        ("", "application/json"),
    ],
)
async def test_the_form_is_the_one_asked_for(handler: Handler, accept: str, content_type: str) -> None:
    response = await handler(Request("GET", "/openapi/v2", headers={"accept": accept}, user=ADMIN))
    assert (response.status, response.content_type) == (200, content_type)
    assert response.body == (openapi.v2() if content_type == "application/json" else openapi_protobuf.v2())


async def test_another_form_is_not_acceptable(handler: Handler) -> None:
    response = await handler(Request("GET", "/openapi/v2", headers={"accept": "text/html"}, user=ADMIN))
    assert response.status == 406
