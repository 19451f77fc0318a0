"""The rules of PersistentVolume, PersistentVolumeClaim and StorageClass.

Source: pkg/apis/core/v1/defaults.go, ValidatePersistentVolume, ValidatePersistentVolumeClaim; pkg/apis/storage.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubesvc.api import registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.causes import IMMUTABLE, forbidden, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules, keep_status

_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_RECLAIM = ("Delete", "Recycle", "Retain")
# of a PersistentVolume's spec: what isn't the kind of storage behind it
_NOT_SOURCES = frozenset((
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
))  # fmt: skip


def default_volume(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    if not spec.get("volumeMode"):
        spec["volumeMode"] = "Filesystem"


def default_claim(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    if not spec.get("volumeMode"):
        spec["volumeMode"] = "Filesystem"


def prepare(new: JSON, old: JSON | None, context: Context) -> None:
    """What is new is pending, and stays so: nothing here binds it."""
    keep_status(new, old, context)
    if old is None:
        new["status"] = {"phase": "Pending"}


def validate_volume(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = list(_access_modes(spec))
    if not spec.get("capacity"):
        causes.append(required("spec.capacity"))
    elif set(spec["capacity"]) != {"storage"}:
        causes.append(not_supported("spec.capacity", spec["capacity"], ("storage",)))
    sources = [name for name in spec if name not in _NOT_SOURCES]
    if not sources:
        causes.append(required("spec", "must specify a volume type"))
    causes += [forbidden(f"spec.{name}", "may not specify more than 1 volume type") for name in sources[1:]]
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy not in _RECLAIM:
        causes.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM))
    return causes


def validate_claim(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    spec = new.get("spec") or {}
    causes = list(_access_modes(spec))
    if not ((spec.get("resources") or {}).get("requests") or {}).get("storage"):
        causes.append(required("spec.resources[storage]"))
    if old is not None and _fixed(spec) != _fixed(old.get("spec") or {}):
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        causes.append(forbidden("spec", why))
    return causes


def _fixed(spec: JSON) -> JSON:
    return {k: v for k, v in spec.items() if k not in ("resources", "volumeAttributesClassName", "volumeName")}


def _access_modes(spec: JSON) -> Iterator[Cause]:
    modes = spec.get("accessModes") or []
    if not modes:
        yield required("spec.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in _MODES:
            yield not_supported("spec.accessModes", mode, _MODES)
    if len(modes) > 1 and "ReadWriteOncePod" in modes:
        why = "may not use ReadWriteOncePod with other access modes"
        yield forbidden("spec.accessModes", why)


def default_class(tree: JSON) -> None:
    for name, value in (("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")):
        if not tree.get(name):
            tree[name] = value


def validate_class(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    if not new.get("provisioner"):
        causes.append(required("provisioner"))
    for name, allowed in (("reclaimPolicy", ("Delete", "Retain")),
                          ("volumeBindingMode", ("Immediate", "WaitForFirstConsumer"))):  # fmt: skip
        if new.get(name) not in allowed:
            causes.append(not_supported(name, new.get(name), allowed))
    if old is not None:
        if (new.get("parameters") or {}) != (old.get("parameters") or {}):
            causes.append(forbidden("parameters", "updates to parameters are forbidden."))
        if new.get("provisioner") != old.get("provisioner"):
            causes.append(forbidden("provisioner", "updates to provisioner are forbidden."))
        if new.get("reclaimPolicy") != old.get("reclaimPolicy"):
            causes.append(forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."))
        if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
            causes.append(Cause("FieldValueInvalid", f"Invalid value: \"{new['volumeBindingMode']}\": {IMMUTABLE}",
                                "volumeBindingMode"))  # fmt: skip
    return causes


ADMITS = (
    (registry.PERSISTENT_VOLUME, Rules(default=default_volume, prepare=prepare, validate=validate_volume)),
    (registry.PERSISTENT_VOLUME_CLAIM, Rules(default=default_claim, prepare=prepare, validate=validate_claim)),
    (registry.STORAGE_CLASS, Rules(default=default_class, validate=validate_class)),
)
