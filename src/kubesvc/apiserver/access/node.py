"""What a node may do of what its role allows: read what its pods need, write what is its own.

    system:node:NAME of the group system:nodes
        nodes, leases            write the one of its own name; not its taints and the labels that pods may rely on
        pods                     write (their status, their end) those bound to it; list them by spec.nodeName
        configmaps, secrets, persistentvolumeclaims      read those that a pod bound to it refers to
        persistentvolumes        read those whose claim such a pod refers to
        serviceaccounts/token    create for the ServiceAccounts of pods bound to it

Follows the node authorizer and the NodeRestriction admission plugin; that a node reads all Nodes (its routes) and may
mark endpoints of kube-dns (its neighbours' that fell silent) is this cluster's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubesvc.api import labels
from kubesvc.api.meta import JSON
from kubesvc.apiserver.access.attributes import MASTERS, Attributes
from kubesvc.client.transport import User

GROUP = "system:nodes"
_PREFIX = "system:node:"
_READS = ("get", "list", "watch")


def node_of(user: User) -> str:
    """The node that `user` is, or ""."""
    is_node = GROUP in user.groups and MASTERS not in user.groups and user.name.startswith(_PREFIX)
    return user.name.removeprefix(_PREFIX) if is_node else ""


def needs_pods(wanted: Attributes) -> bool:
    """Whether the answer depends on which pods the node has."""
    plural = wanted.resource.partition("/")[0]
    return plural in (*_REFERENCES, "persistentvolumes", "serviceaccounts") or (
        plural == "pods" and wanted.verb not in ("list", "watch", "create")
    )


def refusal(
    node: str, wanted: Attributes, pods: list[JSON], *, selector: str = "", named: str = "", claim: str = ""
) -> str:
    """Why not; "" when it may. `pods` are those bound to the node in the namespace asked about, `selector` the
    request's field selector, `named` the name in the body of a create. Of a PersistentVolume, `claim` is the name of
    its claim, and `pods` are those in that claim's namespace."""
    plural = wanted.resource.partition("/")[0]
    reads, name = wanted.verb in _READS, wanted.name or named
    match plural:
        case "nodes" if not reads and name != node:
            return f'node "{node}" is not allowed to modify node "{name}"'
        case "leases" if not reads and (name != node or wanted.namespace != "kube-node-lease"):
            return "can only access node lease with the same name as the requesting node"
        case "pods" if wanted.verb in ("list", "watch"):
            if f"spec.nodeName={node}" not in selector.replace("==", "=").split(","):
                return f"can only list and watch pods with spec.nodeName={node}"
        case "pods" if wanted.verb != "create" and all(pod["metadata"]["name"] != name for pod in pods):
            return f'node "{node}" can only {wanted.verb} pods with spec.nodeName set to itself'
        case "serviceaccounts" if all((pod.get("spec") or {}).get("serviceAccountName") != name for pod in pods):
            return f"no relationship found between node '{node}' and this object"
        case "configmaps" | "secrets" | "persistentvolumeclaims":
            if not name or all(name not in references(pod, plural) for pod in pods):
                return f"no relationship found between node '{node}' and this object"
        case "persistentvolumes" if all(claim not in references(pod, "persistentvolumeclaims") for pod in pods):
            return f"no relationship found between node '{node}' and this object"
    return ""


def write_refusal(node: str, new: JSON, old: JSON | None) -> str:
    """Why a node may not write its own Node like this; "" when it may."""
    before, after = _labels(old), _labels(new)
    changed = sorted(label for label in {*before, *after} if before.get(label) != after.get(label))
    if touched := [label for label in changed if labels.is_restricted(label)]:
        return f'node "{node}" is not allowed to modify labels: {", ".join(touched)}'
    if old is not None and _taints(old) != _taints(new):
        return f'node "{node}" is not allowed to modify taints'
    return ""


def _labels(tree: JSON | None) -> JSON:
    found: JSON = ((tree or {}).get("metadata") or {}).get("labels") or {}
    return found


def _taints(tree: JSON) -> Any:
    return (tree.get("spec") or {}).get("taints") or []


_REFERENCES = {  # where a pod names them: what the value is called, what the name in it is called
    "configmaps": (("configMap", "name"), ("configMapRef", "name"), ("configMapKeyRef", "name")),
    "secrets": (("secret", "name"), ("secret", "secretName"), ("secretRef", "name"), ("secretKeyRef", "name"),
                ("imagePullSecrets", "name")),
    "persistentvolumeclaims": (("persistentVolumeClaim", "claimName"),),
}  # fmt: skip


def references(pod: JSON, plural: str) -> set[str]:
    """The names of the objects of this kind that a pod's spec refers to."""
    spec = pod.get("spec") or {}
    found = set(_names(spec, _REFERENCES[plural]))
    if plural == "persistentvolumeclaims":
        name = pod["metadata"]["name"]
        found |= {f"{name}-{v.get('name')}" for v in spec.get("volumes") or () if v.get("ephemeral")}
    return found


def _names(value: Any, wanted: tuple[tuple[str, str], ...]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _names(item, wanted)
    elif isinstance(value, dict):
        for field, inner in value.items():
            for called, name in wanted:
                if field == called:
                    found = inner if isinstance(inner, list) else [inner]
                    yield from (i[name] for i in found if isinstance(i, dict) and isinstance(i.get(name), str))
            yield from _names(inner, wanted)
