"""What a pod gets of its ServiceAccount: image pull secrets, and a volume with a token, the cluster's CA and the
namespace, where every container finds it; and what a new namespace begins with.

Follows plugin/pkg/admission/serviceaccount/admission.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from kubesvc.api.meta import JSON

DEFAULT = "default"
ROOT_CA = "kube-root-ca.crt"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
SECRET_TYPE = "kubernetes.io/service-account-token"
NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"  # annotations of such a Secret
_PREFIX = "kube-api-access-"
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_SECONDS = 3607

Path = tuple[str, ...]
"""Elements of managed fields, from the root: what the server has added belongs to nobody."""


def name_of(pod: JSON) -> str:
    spec = pod.get("spec")
    found = (spec.get("serviceAccountName") or spec.get("serviceAccount")) if isinstance(spec, dict) else ""
    return found if found and isinstance(found, str) else DEFAULT


def give(pod: JSON, account: JSON, choose: Callable[[int], int]) -> list[Path]:
    """Add to a new pod, of the right types, what its account gives it; the elements that were added."""
    spec: JSON = pod["spec"]
    added: list[Path] = []
    secrets = account.get("imagePullSecrets") or []
    if secrets and not spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(secret) for secret in secrets]
        added.append(("f:spec", "f:imagePullSecrets"))
    if _automounts(spec, account):
        added += _mount(spec, choose)
    return added


def _automounts(spec: JSON, account: JSON) -> bool:
    for said in (spec.get("automountServiceAccountToken"), account.get("automountServiceAccountToken")):
        if said is not None:
            return bool(said)
    return True


def _mount(spec: JSON, choose: Callable[[int], int]) -> list[Path]:
    volumes = spec.get("volumes") or []
    name = next((v["name"] for v in volumes if v.get("name", "").startswith(_PREFIX)), "")
    known = bool(name)
    added: list[Path] = []
    name = name or _PREFIX + "".join(_SUFFIX[choose(len(_SUFFIX))] for _ in range(5))
    for group, container in _containers(spec):
        mounts = container.get("volumeMounts") or []
        if all(mount.get("mountPath") != MOUNT_PATH for mount in mounts):
            container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
            here = _key(name=container.get("name"))
            added.append(("f:spec", f"f:{group}", here, "f:volumeMounts", _key(mountPath=MOUNT_PATH)))
    if added and not known:
        spec["volumes"] = [*volumes, _volume(name)]
        added.append(("f:spec", "f:volumes", _key(name=name)))
    return added


def _key(**keys: Any) -> str:
    return f"k:{msgspec.json.encode(keys).decode()}"


def _containers(spec: JSON) -> Iterator[tuple[str, JSON]]:
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or ():
            yield group, container


def _volume(name: str) -> JSON:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _SECONDS, "path": "token"}},
                {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
            ],
        },
    }


def account_of(namespace: str) -> JSON:
    """The ServiceAccount that a namespace begins with."""
    return {"metadata": {"name": DEFAULT, "namespace": namespace}}
