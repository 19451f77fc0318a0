"""The paths of the OpenAPI documents: of which kind each is, which verbs it takes, with which parameters and bodies.

    COLLECTION   COLLECTION/{name}   COLLECTION/{name}/SUBRESOURCE   …/proxy/{path}

They hold what clients look at: the kind of a path, that patch takes fieldValidation and dryRun, which patches there
are. Versions 2 and 3 say it in different places: a body is a parameter or the requestBody, its media types are
`consumes` or the keys of its content.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubesvc.api import schema
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.patch import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from kubesvc.apiserver.served import Subresource, served

V3, V2 = "#/components/schemas/", "#/definitions/"
GVK = "x-kubernetes-group-version-kind"
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)
CUSTOM_PATCHES = (JSON_PATCH, MERGE_PATCH)

_SENT = ("dryRun", "fieldManager", "fieldValidation")
# verb -> the query parameters that clients look for
PARAMETERS = {
    "get": ("pretty",),
    "list": ("continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "timeoutSeconds", "watch"),
    "post": _SENT,
    "put": _SENT,
    "patch": (*_SENT, "force"),
    "delete": ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"),
    "deletecollection": ("dryRun", "fieldSelector", "labelSelector", "propagationPolicy"),
}
# what is connected to -> its query parameters
_CONNECTS = {
    "exec": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "attach": ("container", "stderr", "stdin", "stdout", "tty"),
    "portforward": ("ports",),
    "proxy": ("path",),
}
_LOG = ("container", "follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "tailLines", "timestamps")
# verb of the registry -> its method here
_METHODS = {"list": "get", "get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete",
            "deletecollection": "delete"}  # fmt: skip
_PROXY_METHODS = ("get", "put", "post", "delete", "patch")


def type_name(kind: Kind) -> str:
    """The name of the kind's type in the documents: com.example.v1.Widget of a custom kind."""
    if isinstance(kind, CustomKind):
        return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])
    return schema.type_name(kind)


def gvk(kind: Kind | Subresource) -> JSON:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def bodies(kind: Kind) -> Iterator[str]:
    """The types, beside the kind's own, that its subresources are sent and answer."""
    for name, sub in served(kind):
        if sub.kind and name not in _CONNECTS:
            yield schema.schema().kinds[f"{sub.group}/{sub.version}/{sub.kind}"]


def paths_of(kind: Kind, prefix: str) -> JSON:
    """Path -> its item. `prefix` is V3 or V2: where the document has its types."""
    scope = "namespaces/{namespace}/" if kind.namespaced else ""
    collection = f"{kind.root}/{scope}{kind.plural}"
    one = f"{collection}/{{name}}"
    found = {
        collection: _item(kind, prefix, ("list", "create", "deletecollection"), ()),
        one: _item(kind, prefix, ("get", "update", "patch", "delete"), ("name",)),
    }
    if kind.namespaced:
        found[f"{kind.root}/{kind.plural}"] = _item(kind, prefix, ("list",), (), everywhere=True)
    for name, sub in served(kind):
        if name in _CONNECTS:
            found[f"{one}/{name}"] = _connect(kind, prefix, name, sub, ("name",))
            if name == "proxy":
                found[f"{one}/{name}/{{path}}"] = _connect(kind, prefix, name, sub, ("name", "path"))
        else:
            found[f"{one}/{name}"] = _subresource(kind, prefix, name, sub)
    return {path: item for path, item in found.items() if len(item) > 1}


def _item(kind: Kind, prefix: str, verbs: tuple[str, ...], named: tuple[str, ...], *, everywhere: bool = False) -> JSON:
    item: JSON = {}
    for verb in verbs:
        if verb in kind.verbs:
            suffix = "ForAllNamespaces" if everywhere else ""
            item[_METHODS[verb]] = _operation(kind, prefix, verb, gvk(kind), type_name(kind), suffix)
    return item | _in_path(kind, prefix, named, everywhere=everywhere)


def _subresource(kind: Kind, prefix: str, name: str, sub: Subresource) -> JSON:
    body = schema.schema().kinds[f"{sub.group}/{sub.version}/{sub.kind}"] if sub.kind else type_name(kind)
    item: JSON = {}
    for verb in sub.verbs:
        if name == "log":
            item["get"] = _plain(prefix, f"get{_id(kind)}Log", "get", gvk(kind), _LOG)
        else:
            about = gvk(sub) if sub.kind else gvk(kind)
            item[_METHODS[verb]] = _operation(kind, prefix, verb, about, body, name.title())
    return item | _in_path(kind, prefix, ("name",))


def _connect(kind: Kind, prefix: str, name: str, sub: Subresource, named: tuple[str, ...]) -> JSON:
    methods = _PROXY_METHODS if name == "proxy" else ("get", "post")
    query = () if "path" in named else _CONNECTS[name]
    item = {
        method: _plain(
            prefix, f"connect{method.title()}{_id(kind)}{name.title()}{'Path' if 'path' in named else ''}", "connect",
            gvk(sub), query,
        )
        for method in methods
    }  # fmt: skip
    return item | _in_path(kind, prefix, named)


def _in_path(kind: Kind, prefix: str, named: tuple[str, ...], *, everywhere: bool = False) -> JSON:
    names = ("namespace", *named) if kind.namespaced and not everywhere else named
    return {"parameters": [_parameter(name, "path", prefix) for name in names]}


def _id(kind: Kind) -> str:
    return f"{kind.group.title().replace('.', '')}{kind.version.title()}{kind.kind}"


def _operation(kind: Kind, prefix: str, verb: str, about: JSON, body_type: str, suffix: str = "") -> JSON:
    """`about` is the kind of the bodies, `body_type` their type."""
    method = "list" if verb == "list" else "deletecollection" if verb == "deletecollection" else _METHODS[verb]
    body = {"$ref": prefix + body_type}
    answer = {"description": "OK", "content": {"application/json": {"schema": body}}}
    operation: JSON = {
        "operationId": f"{method}{_id(kind)}{suffix}",
        "parameters": [_parameter(name, "query", prefix) for name in PARAMETERS[method]],
        "responses": {"200": answer if prefix == V3 else {"description": "OK", "schema": body}},
        "x-kubernetes-action": method,
        GVK: about,
    }
    if verb not in ("create", "update", "patch"):
        return operation
    patches = CUSTOM_PATCHES if isinstance(kind, CustomKind) else PATCHES
    media = patches if verb == "patch" else ("*/*",)
    if prefix == V3:
        operation["requestBody"] = {"content": {name: {"schema": body} for name in media}, "required": True}
    else:
        operation["consumes"] = list(media)
        operation["parameters"].append({"name": "body", "in": "body", "required": True, "schema": body})
    return operation


def _plain(prefix: str, name: str, action: str, about: JSON, query: tuple[str, ...]) -> JSON:
    """An operation that answers with what is no object."""
    text = {"type": "string"}
    answer = {"description": "OK", "content": {"*/*": {"schema": text}}}
    return {
        "operationId": name,
        "parameters": [_parameter(parameter, "query", prefix) for parameter in query],
        "responses": {"200": answer if prefix == V3 else {"description": "OK", "schema": text}},
        "x-kubernetes-action": action,
        GVK: about,
    }


def _parameter(name: str, where: str, prefix: str) -> JSON:
    found: JSON = {"name": name, "in": where}
    if where == "path":
        found["required"] = True
    return {**found, "schema": {"type": "string"}} if prefix == V3 else {**found, "type": "string"}
