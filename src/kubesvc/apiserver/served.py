"""The subresources of each kind: of which kind their bodies are, and which verbs they take.

Discovery and OpenAPI say it.
"""

from __future__ import annotations

from typing import NamedTuple

from kubesvc.api.registry import Kind


class Subresource(NamedTuple):
    """The kind its bodies have ("" for that of its parent) and the verbs it takes."""

    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]


SUBRESOURCES: dict[str, Subresource] = {
    "status": Subresource("", "", "", ("get", "patch", "update")),
    "scale": Subresource("autoscaling", "v1", "Scale", ("get", "patch", "update")),
    "binding": Subresource("", "v1", "Binding", ("create",)),
    "ephemeralcontainers": Subresource("", "", "", ("get", "patch", "update")),
    "eviction": Subresource("policy", "v1", "Eviction", ("create",)),
    "finalize": Subresource("", "", "", ("update",)),
    "log": Subresource("", "", "", ("get",)),
    "exec": Subresource("", "v1", "PodExecOptions", ("create", "get")),
    "attach": Subresource("", "v1", "PodAttachOptions", ("create", "get")),
    "token": Subresource("authentication.k8s.io", "v1", "TokenRequest", ("create",)),
    "portforward": Subresource("", "v1", "PodPortForwardOptions", ("create", "get")),
}


def served(kind: Kind) -> list[tuple[str, Subresource]]:
    """(name, subresource), in the order of the registry."""
    proxy = Subresource("", "v1", f"{kind.kind}ProxyOptions", ("create", "delete", "get", "patch", "update"))
    known = {**SUBRESOURCES, "proxy": proxy}
    return [(name, known[name]) for name in kind.subresources if name in known]
