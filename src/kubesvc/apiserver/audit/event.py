"""One audit.k8s.io/v1 Event. Headers are never in it but the user agent: they carry credentials."""

from __future__ import annotations

from typing import Any

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.apiserver.access.attributes import Attributes, groups_of
from kubesvc.apiserver.routing import Target
from kubesvc.client.transport import Request, Response, User

ANONYMOUS: JSON = {"username": "system:anonymous", "groups": ["system:unauthenticated"]}


def received(request: Request, target: Target | None, wanted: Attributes, audit_id: str, level: str, now: str) -> JSON:
    """What is known before the answer."""
    uri = request.raw_path or request.path
    if request.raw_query and "?" not in uri:
        uri = f"{uri}?{request.raw_query}"
    found: JSON = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": level,
        "auditID": audit_id,
        "stage": "RequestReceived",
        "requestURI": uri,
        "verb": wanted.verb,
        "user": who(request.user),
        "sourceIPs": [request.source] if request.source else [],
        "userAgent": request.headers.get("user-agent", ""),
        "requestReceivedTimestamp": now,
        "stageTimestamp": now,
    }
    if target is not None:
        kind = target.kind
        reference = {"resource": kind.plural, "namespace": target.namespace, "name": target.name}
        reference |= {"apiGroup": kind.group, "apiVersion": kind.version, "subresource": target.subresource}
        found["objectRef"] = {name: value for name, value in reference.items() if value}
    return found


def who(user: User | None) -> JSON:
    return {"username": user.name, "groups": list(groups_of(user))} if user is not None else {}


def status(response: Response) -> JSON:
    """The answer's code, and of a failure why."""
    found: JSON = {"metadata": {}}
    if response.status >= 400:
        body = decoded(response.body, response.content_type)
        if isinstance(body, dict) and body.get("kind") == "Status":
            found |= {name: body[name] for name in ("status", "message", "reason", "details") if body.get(name)}
    return found | {"code": response.status}


def decoded(body: bytes, content_type: str) -> Any:
    """A JSON body as a tree; None for another."""
    if not body or not content_type.partition(";")[0].strip().endswith("json"):
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def without_managed_fields(tree: Any) -> Any:
    """Of an object or a list of them."""
    if not isinstance(tree, dict):
        return tree
    found = dict(tree)
    if isinstance(found.get("metadata"), dict):
        found["metadata"] = {k: v for k, v in found["metadata"].items() if k != "managedFields"}
    if isinstance(found.get("items"), list):
        found["items"] = [without_managed_fields(item) for item in found["items"]]
    return found
