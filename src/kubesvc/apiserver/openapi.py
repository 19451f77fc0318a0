"""The OpenAPI documents: what kubectl asks before `apply`, `diff` and `explain`.

Built from the schema on first use and kept. Version 3 has a document for each group and version; version 2 is one
document, which `openapi_protobuf` has as protobuf too. Here are the types; the paths are in `openapi_paths`.
"""

from __future__ import annotations

import hashlib
from functools import cache

import msgspec

from kubesvc.api import schema
from kubesvc.api.descriptions import DESCRIPTIONS, ENUMS, describe, values
from kubesvc.api.meta import JSON
from kubesvc.api.registry import KINDS, Kind
from kubesvc.api.schema import Field
from kubesvc.apiserver.openapi_paths import GVK, PARAMETERS, V2, V3, bodies, gvk, paths_of

_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


@cache
def v2() -> bytes:
    """/openapi/v2 as JSON."""
    kinds = list(KINDS.values())
    paths = {path: item for kind in kinds for path, item in paths_of(kind, V2).items()}
    return msgspec.json.encode(
        {"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions(kinds, V2)}
    )


@cache
def v3_index() -> bytes:
    """/openapi/v3: where the document of each group and version is. The hash lets clients keep what they have."""
    paths = {
        root: {"serverRelativeURL": f"/openapi/v3/{root}?hash={_digest()}"}
        for root in sorted({kind.root.removeprefix("/") for kind in KINDS.values()})
    }
    return msgspec.json.encode({"paths": paths})


@cache
def v3(group_version_path: str) -> bytes | None:
    """/openapi/v3/PATH, such as api/v1 or apis/apps/v1; None when it isn't served."""
    kinds = [kind for kind in KINDS.values() if kind.root == f"/{group_version_path}"]
    if not kinds:
        return None
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": info(),
            "paths": {path: item for kind in kinds for path, item in paths_of(kind, V3).items()},
            "components": {"schemas": definitions(kinds, V3)},
        }
    )


def info() -> JSON:
    return {"title": "kubesvc", "version": f"v{schema.schema().version}"}


@cache
def _digest() -> str:
    """Changes whenever a document would: it is over everything they are made from."""
    parts = (schema.schema(), DESCRIPTIONS, sorted(ENUMS.items()), PARAMETERS, [repr(k) for k in KINDS.values()])
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest().upper()


# ── types ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def definitions(kinds: list[Kind], prefix: str, more: tuple[str, ...] = ()) -> JSON:
    """Every type that `kinds` and the types called `more` reach, by name."""
    roots = {schema.type_name(kind): kind for kind in kinds}
    waiting = [
        *roots,
        *more,
        _META + "DeleteOptions",
        _META + "Status",
        *(body for kind in kinds for body in bodies(kind)),
    ]
    found: JSON = {
        _INT_OR_STRING: {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
        _QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
    }
    if prefix == V2:  # which has no oneOf
        found = {_INT_OR_STRING: {"type": "string", "format": "int-or-string"}, _QUANTITY: {"type": "string"}}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        of = schema.named(name)
        properties = {field: _property(name, field, f, prefix) for field, f in of.fields.items()}
        found[name] = _described({"type": "object", "properties": properties}, describe(name), prefix)
        if of.required:
            found[name]["required"] = list(of.required)
        if of.map:
            found[name]["x-kubernetes-map-type"] = of.map
        if name in roots:
            found[name][GVK] = [gvk(roots[name])]
        waiting += [ref for field in of.fields.values() if (ref := _reference(field))]
    return found


def _reference(field: Field) -> str:
    """The type a field leads to, through arrays and maps."""
    inner = field.items or field.values
    return field.ref or (_reference(inner) if inner is not None else "")


def _property(owner: str, name: str, field: Field, prefix: str) -> JSON:
    found = _described(_shape(field, prefix), describe(owner, name), prefix)
    for extra, value in (
        ("enum", list(values(owner, name))),
        ("x-kubernetes-list-type", field.list),
        ("x-kubernetes-list-map-keys", list(field.keys)),
        ("x-kubernetes-map-type", field.map),
        ("x-kubernetes-patch-merge-key", field.merge),
        ("x-kubernetes-patch-strategy", field.strategy),
    ):
        if value:
            found[extra] = value
    return found


def _described(shape: JSON, text: str, prefix: str) -> JSON:
    """A $ref of version 3 may have no siblings, so text goes around it. Readers of version 2 follow no allOf."""
    if not text:
        return shape
    around = "$ref" in shape and prefix == V3
    return {"description": text, "allOf": [shape]} if around else {"description": text, **shape}


def _shape(field: Field, prefix: str) -> JSON:
    if field.ref:
        return {"$ref": prefix + field.ref}
    match field.type:
        case "int-or-string":
            return {"$ref": prefix + _INT_OR_STRING}
        case "quantity":
            return {"$ref": prefix + _QUANTITY}
        case "any":
            return {"type": "object"}
        case "array":
            return {"type": "array", "items": _shape(field.items, prefix) if field.items else {}}
        case "object" if field.values is not None:
            return {"type": "object", "additionalProperties": _shape(field.values, prefix)}
        case kind:
            return {"type": kind, "format": field.format} if field.format else {"type": kind}
