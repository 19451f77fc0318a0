"""What a request wants to do, in the words rules are written in."""

from __future__ import annotations

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.apiserver.routing import Target, is_true
from kubesvc.client.transport import Request, User

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
ANONYMOUS, UNAUTHENTICATED = "system:anonymous", "system:unauthenticated"

_OBJECT = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION = {"GET": "list", "HEAD": "list", "DELETE": "deletecollection"}


class Attributes(msgspec.Struct, frozen=True):
    """A verb on a resource ("pods", or "pods/log" of a subresource), or on a path that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    def refusal(self, user: str) -> str:
        """In upstream's words."""
        if self.path:
            return f'User "{user}" cannot {self.verb} path "{self.path}"'
        scope = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return f'User "{user}" cannot {self.verb} resource "{self.resource}" in API group "{self.group}" {scope}'


def of(request: Request, target: Target | None) -> Attributes:
    if target is None:
        return Attributes(_OBJECT.get(request.method, request.method.lower()), path=request.path)
    kind, name = target.kind, target.name
    verb = _OBJECT.get(request.method, request.method.lower())
    if not name:
        verb = _COLLECTION.get(request.method, verb)
        if verb == "list":
            if is_true(request.query, "watch"):
                verb = "watch"
            name = _selected(request.query.get("fieldSelector", ""))
    namespace = target.namespace
    if not namespace and kind.group == "" and kind.plural == "namespaces":
        namespace = target.name  # as upstream: a namespace is in itself
    resource = f"{kind.plural}/{target.subresource}" if target.subresource else kind.plural
    return Attributes(verb, kind.group, resource, namespace, name)


def _selected(selector: str) -> str:
    """The one name a field selector asks for, so that who may read one object may also watch it."""
    for term in selector.split(","):
        path, equals, value = term.partition("=")
        if equals and path.strip() == "metadata.name":
            return value.lstrip("=").strip()
    return ""


def groups_of(user: User) -> tuple[str, ...]:
    """All of a user's groups: everybody who is known is in system:authenticated."""
    return user.groups if not user.authenticated or AUTHENTICATED in user.groups else (*user.groups, AUTHENTICATED)


def user_info(user: User) -> JSON:
    """A user as authentication.k8s.io/v1 has it."""
    found: JSON = {"username": user.name}
    if user.uid:
        found["uid"] = user.uid
    found["groups"] = list(groups_of(user))
    if user.extra:
        found["extra"] = {name: list(values) for name, values in user.extra}
    return found
