"""From a path to what it names: a kind's collection, an object, or a subresource of one.

/api/v1/namespaces/NAMESPACE/services/NAME/status        /apis/GROUP/VERSION/…
└ root ┘└──── namespace ────┘└plural┘└name┘└subresource┘

What follows `/proxy` is a path of somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from kubesvc.api.registry import NAMESPACE, Kind, served
from kubesvc.client.transport import Request

PROXY = "proxy"

Find = Callable[[str, str, str], Kind | None]
"""(group, version, plural) -> the kind served there."""


class Target(msgspec.Struct, frozen=True):
    """What a request is about. No name: the collection. No namespace: all of them, or a cluster-scoped kind."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def resolve(path: str, find: Find = served) -> Target | None:
    """The target of a resource path, or None where no kind is served."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and rest[2] in NAMESPACE.subresources):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3 and rest[2] == PROXY:
        rest = rest[:3]
    kind = find(group, version, rest[0])
    if kind is None or len(rest) > 3 or "" in rest or (namespace and not kind.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and subresource not in kind.subresources:
        return None
    if name and kind.namespaced and not namespace:
        return None
    return Target(kind, namespace, name, subresource)


def is_true(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is a boolean. As upstream, whatever isn't false or 0 is true: clients in Python send True."""
    return name in query and query[name].lower() not in ("false", "0")


def of_old(request: Request) -> Request:
    """A watch as it was asked for before it had a parameter: /api/v1/watch/…, of a collection or of one object, as the
    request that means the same today. Any other request as it is."""
    parts = request.path.strip("/").split("/")
    at = 2 if parts[0] == "api" else 3
    if request.method != "GET" or len(parts) <= at + 1 or parts[at] != "watch":
        return request
    path, query = "/" + "/".join(parts[:at] + parts[at + 1 :]), {**request.query, "watch": "true"}
    target = resolve(path)
    if target is not None and target.name and not target.subresource:
        path = path.rpartition("/")[0]
        selector = f"metadata.name={target.name}"
        query["fieldSelector"] = ",".join(filter(None, (query.get("fieldSelector"), selector)))
    return msgspec.structs.replace(request, path=path, query=query)


def streamed(path: str) -> bool:
    """Whether the body of a request for `path` is passed on as it comes, instead of being read first."""
    if f"/{PROXY}" not in path:
        return False
    target = resolve(path)
    return target is not None and target.subresource == PROXY
